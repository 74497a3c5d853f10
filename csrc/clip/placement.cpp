// What stays in memory of the networks that are used next, by what is free.
#include <algorithm>
#include <numeric>
#include <string>

#include "base/log.h"
#include "pipeline.h"

namespace sdltx {

namespace {

// Of the host, for what is not counted: tables of pages, Python, other programs that grow.
constexpr size_t reserve = size_t{128} << 20;

size_t less(size_t from, size_t amount) { return from - std::min(from, amount); }

std::string gib(size_t bytes) {
    std::string text = std::to_string((bytes * 10 + (size_t{1} << 29)) >> 30);
    text.insert(text.size() - 1, text.size() == 1 ? "0." : ".");
    return text + " GiB";
}

// Blocks of a transformer and its LoRAs run together; `groups` are theirs and what belongs to none.
class Blocks {
 public:
    Blocks(const std::vector<Weights*>& networks, size_t devices) : fixed_(devices) {
        for (const Weights* w : networks) count_ = std::max(count_, w->num_blocks());
        if (count_ < 2) count_ = 0;
        blocks_.resize(count_);
        device_.resize(count_);
        for (const Weights* w : networks)
            for (size_t group = 0; group <= w->num_blocks(); ++group) {
                const Weights::Size size = w->size_of(group);
                const bool of_block = group > 0 && w->num_blocks() == count_;
                const size_t device = group ? w->device_of(group - 1) : 0;
                (of_block ? blocks_[group - 1] : fixed_[device]) += size;
                if (of_block) device_[group - 1] = device;
            }
    }

    size_t own(size_t device) const {
        size_t bytes = fixed_[device].own;
        for (size_t i = 0; i < count_; ++i)
            if (device_[i] == device) bytes += blocks_[i].own;
        return bytes;
    }
    size_t largest(size_t device, size_t Weights::Size::* kind) const {
        size_t most = 0;
        for (size_t i = 0; i < count_; ++i)
            if (device_[i] == device) most = std::max(most, blocks_[i].*kind);
        return most;
    }
    size_t fixed(size_t device, size_t Weights::Size::* kind) const { return fixed_[device].*kind; }
    size_t mapped() const {
        size_t bytes = 0;
        for (const Weights::Size& s : fixed_) bytes += s.mapped;
        for (const Weights::Size& s : blocks_) bytes += s.mapped;
        return bytes;
    }
    // Which blocks stay on devices where so much is free for all of them; `passing` at a time need room, too.
    std::vector<bool> kept(const std::vector<size_t>& free, size_t passing) const {
        std::vector<size_t> left;
        for (size_t d = 0; d < fixed_.size(); ++d) {
            const size_t ring = passing * largest(d, &Weights::Size::own);
            left.push_back(own(d) <= free[d] ? SIZE_MAX : less(less(free[d], fixed_[d].own), ring));
        }
        std::vector<bool> stays(count_);
        for (size_t i = 0; i < count_; ++i) {
            size_t& of_device = left[device_[i]];
            stays[i] = blocks_[i].own <= of_device;
            of_device = stays[i] ? (of_device == SIZE_MAX ? SIZE_MAX : of_device - blocks_[i].own) : 0;
        }
        return stays;
    }
    size_t count() const { return count_; }
    const Weights::Size& block(size_t i) const { return blocks_[i]; }

 private:
    size_t count_ = 0;
    std::vector<Weights::Size> fixed_, blocks_;  // by device, by block
    std::vector<size_t> device_;
};

}  // namespace

void Pipeline::make_room(const std::vector<Weights*>& networks, const std::vector<size_t>& working) {
    if (networks.empty() || std::any_of(networks.begin(), networks.end(), [](Weights* w) { return w->in_use(); }))
        return;
    const size_t devices = backend_->num_devices();
    const bool host = backend_->uses_host_memory(), automatic = backend_->offload() == Offload::automatic;
    const Blocks blocks(networks, devices);
    std::vector<Weights*> others = networks_->weights();
    for (auto& lora : loras_) others.push_back(&lora->weights());
    others.erase(
        std::remove_if(others.begin(), others.end(),
                       [&](Weights* w) { return std::find(networks.begin(), networks.end(), w) != networks.end(); }),
        others.end());
    // What can be given to these networks, what they have already included.
    const auto free = [&] {
        std::vector<size_t> bytes;
        for (size_t d = 0; d < devices; ++d) {
            size_t left = backend_->available_memory(d);
            if (left != SIZE_MAX)
                for (const Weights* w : networks) left += w->held(d);
            const size_t taken = (d < working.size() ? working[d] : 0) + (host ? reserve : 0);
            bytes.push_back(left == SIZE_MAX ? left : less(left, taken));
        }
        return bytes;
    };
    std::vector<size_t> room = free();
    const auto fits = [&] {
        for (size_t d = 0; d < devices; ++d)
            if (blocks.own(d) > room[d]) return false;
        return true;
    };
    Weights::Kept kept = networks.front()->kept();
    if (automatic) {
        kept.blocks.clear();
        if (!fits()) {
            for (Weights* w : others) w->let_go();
            room = free();
        }
        if (!fits() && blocks.count()) kept.blocks = blocks.kept(room, host ? 1 : 2);
    }
    kept.pages = SIZE_MAX;
    kept.ahead = Weights::Kept{}.ahead;
    if (host && room[0] != SIZE_MAX) {
        size_t all = 0, own = blocks.fixed(0, &Weights::Size::own);
        for (size_t i = 0; i < blocks.count(); ++i)
            if (kept.blocks.empty() || kept.blocks[i]) own += blocks.block(i).own;
        for (const Weights* w : others) all += w->size().mapped;
        const size_t pages = less(room[0], own);
        if (blocks.mapped() + all > pages)
            for (Weights* w : others) w->let_go_of_pages();
        if (blocks.mapped() > pages) {
            kept.ahead = std::clamp(pages / 16, size_t{32} << 20, kept.ahead);
            kept.pages = less(pages, blocks.fixed(0, &Weights::Size::mapped) +
                                         blocks.largest(0, &Weights::Size::mapped) + kept.ahead);
        }
    }
    for (Weights* w : networks)
        if (w->num_blocks() == blocks.count() && blocks.count()) w->keep(kept);
    tell_of(blocks.count(), kept, blocks.mapped());
}

void Pipeline::tell_of(size_t count, const Weights::Kept& kept, size_t mapped) const {
    if (const auto passing = std::count(kept.blocks.begin(), kept.blocks.end(), false);
        passing && backend_->offload() == Offload::automatic)
        log(20, "[memory] " + std::to_string(passing) + " of " + std::to_string(count) +
                    " blocks are brought for each use, as there is no room for all");
    if (kept.pages != SIZE_MAX)
        log(20, "[memory] " + gib(kept.pages) + " of blocks stay in memory, the rest of " + gib(mapped) +
                    " is read for each use");
}

}  // namespace sdltx
