// What stays in memory of the networks that are used next, by what is free.
#include <algorithm>
#include <string>

#include "base/log.h"
#include "pipeline.h"

namespace sdltx {

namespace {

// Of the host, for what is not counted: tables of pages, Python, other programs that grow.
constexpr size_t reserve = size_t{128} << 20;

size_t less(size_t from, size_t amount) { return from - std::min(from, amount); }

std::string spell_bytes(size_t bytes) {
    if (bytes < size_t{1} << 30) return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
    std::string text = std::to_string((bytes * 10 + (size_t{1} << 29)) >> 30);
    text.insert(text.size() - 1, text.size() == 1 ? "0." : ".");
    return text + " GiB";
}

// What networks take that run together, such as a transformer and its LoRAs: outside their blocks, and in each of them.
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
    // What they have of their own when those of `kept` stay, empty: all, and of the others so many at a time.
    size_t kept_own(size_t device, const std::vector<bool>& kept, size_t passing) const {
        if (kept.empty()) return own(device);
        size_t bytes = fixed_[device].own;
        bool all = true;
        for (size_t i = 0; i < count_; ++i) {
            if (device_[i] != device) continue;
            all = all && kept[i];
            if (kept[i]) bytes += blocks_[i].own;
        }
        return bytes + (all ? 0 : passing * largest(device, &Weights::Size::own));
    }
    size_t passing(const std::vector<bool>& kept) const {
        size_t bytes = 0;
        for (size_t i = 0; i < std::min(count_, kept.size()); ++i)
            if (!kept[i]) bytes += blocks_[i].own;
        return bytes;
    }
    size_t count() const { return count_; }

 private:
    size_t count_ = 0;
    std::vector<Weights::Size> fixed_, blocks_;  // by device, by block
    std::vector<size_t> device_;
};

// Bytes that `use` takes of a device's memory; on the host also those on their way.
size_t taken(const MemoryUse& use, size_t device, bool host) {
    size_t bytes = host ? use.host + reserve : 0;
    if (device < use.working.size()) bytes += use.working[device];
    if (device < use.inputs.size()) bytes += use.inputs[device];
    return bytes;
}

}  // namespace

std::vector<Weights*> Pipeline::others(const std::vector<Weights*>& networks) const {
    std::vector<Weights*> all = networks_->weights();
    for (auto& lora : loras_) all.push_back(&lora->weights());
    const auto taken = [&](Weights* w) {
        return std::find(networks.begin(), networks.end(), w) != networks.end() || w->in_use();
    };
    all.erase(std::remove_if(all.begin(), all.end(), taken), all.end());
    return all;
}

Pipeline::Placed Pipeline::place(const std::vector<Weights*>& networks, const MemoryUse& use, bool alone) const {
    const size_t devices = backend_->num_devices();
    const bool host = backend_->uses_host_memory(), automatic = backend_->offload() == Offload::automatic;
    const Blocks blocks(networks, devices);
    const std::vector<Weights*> rest = others(networks);
    Placed placed{{}, true, std::vector<size_t>(devices), 0, 0, 0, 0, std::vector<size_t>(devices), {}};
    bool fits = true, ahead = true;
    for (size_t d = 0; d < devices; ++d) {
        size_t& left = placed.room[d];
        left = backend_->available_memory(d);
        if (left != SIZE_MAX) {
            for (const Weights* w : networks) left += w->held(d);
            if (alone && automatic)
                for (const Weights* w : rest) left += w->held(d);
            left = less(left, taken(use, d, host));
        }
        const size_t one = blocks.largest(d, &Weights::Size::own);
        placed.least.push_back(blocks.fixed(d, &Weights::Size::own) + one);
        fits = fits && blocks.own(d) <= left;
        ahead = ahead && placed.least.back() + one <= left;
    }
    placed.kept.brings_ahead = ahead;
    const size_t passing = host || !ahead ? 1 : 2;
    if (!networks.empty()) placed.kept.blocks = networks.front()->kept().blocks;
    if (automatic) {
        placed.kept.blocks.clear();
        if (!fits && blocks.count()) placed.kept.blocks = blocks.kept(placed.room, passing);
    }
    placed.fits = fits || (automatic && blocks.count() > 0);
    for (size_t d = 0; d < devices; ++d) placed.own[d] = blocks.kept_own(d, placed.kept.blocks, passing);
    for (size_t d = 0; d < devices && placed.fits; ++d) placed.fits = placed.own[d] <= placed.room[d];
    placed.blocks = blocks.count();
    if (!host) placed.brought = blocks.passing(placed.kept.blocks);
    placed.mapped = blocks.mapped();
    if (host && placed.room[0] != SIZE_MAX) {
        const size_t pages = less(placed.room[0], placed.own[0]);
        if (blocks.mapped() > pages) {
            placed.kept.ahead = std::clamp(pages / 16, size_t{32} << 20, placed.kept.ahead);
            placed.kept.pages = less(pages, blocks.fixed(0, &Weights::Size::mapped) +
                                                blocks.largest(0, &Weights::Size::mapped) + placed.kept.ahead);
            placed.passing = less(blocks.mapped(), blocks.fixed(0, &Weights::Size::mapped) + placed.kept.pages);
        }
    }
    return placed;
}

void Pipeline::make_room(const std::vector<Weights*>& networks, const MemoryUse& use) {
    if (networks.empty() || std::any_of(networks.begin(), networks.end(), [](Weights* w) { return w->in_use(); }))
        return;
    const std::vector<Weights*> rest = others(networks);
    Placed placed = place(networks, use, /*alone=*/false);
    const auto crowded = [&] {
        return !placed.fits ||
               std::find(placed.kept.blocks.begin(), placed.kept.blocks.end(), false) != placed.kept.blocks.end();
    };
    if (backend_->offload() == Offload::automatic && crowded()) {
        for (Weights* w : rest) w->let_go();
        placed = place(networks, use, /*alone=*/true);
    }
    if (backend_->uses_host_memory() && placed.room[0] != SIZE_MAX) {
        size_t mapped = placed.mapped + placed.own[0];
        for (const Weights* w : rest) mapped += w->size().mapped;
        if (mapped > placed.room[0])
            for (Weights* w : rest) w->let_go_of_pages();
    }
    for (Weights* w : networks)
        if (placed.blocks && w->num_blocks() == placed.blocks) w->keep(placed.kept);
    tell_of(placed);
}

std::string Pipeline::misfit(const Step& step, const MemoryUse& use) {
    const bool host = backend_->uses_host_memory();
    const std::vector<Weights*> networks = networks_of(step), rest = others(networks);
    const Placed placed = place(networks, use, /*alone=*/true);
    const size_t upscaler =
        step.kind == StepKind::upscale && networks_->video_decoder ? upscaler_size(step.upscaler).own : 0;
    for (size_t d = 0; d < placed.room.size(); ++d) {
        const size_t needed = taken(use, d, /*host=*/false) + (host ? use.host : 0),
                     weights = (backend_->offload() == Offload::automatic ? placed.least[d] : placed.own[d]) +
                               (d == 0 ? upscaler : 0),
                     free = backend_->available_memory(d);
        size_t most = free;
        if (free != SIZE_MAX)
            for (const auto* list : {&networks, &rest})
                for (const Weights* w : *list) most += w->held(d);
        if (most == SIZE_MAX || needed + weights <= most) continue;
        const char* advice = "ask for a smaller picture or fewer frames";
        if (step.kind == StepKind::encode_prompts) advice = "give a smaller text encoder, such as a GGUF file";
        if (step.kind == StepKind::decode_pictures) advice = "ask for a smaller picture, fewer frames or smaller tiles";
        return "[" + std::string(name_of(step.kind)) + "] needs " + spell_bytes(needed + weights) + " of memory on " +
               backend_->device_name(d) + " (" + spell_bytes(weights) + " for weights), " + spell_bytes(most) +
               " are free; " + advice;
    }
    return "";
}

bool Pipeline::may_choose_tiles(const Request& request) const {
    return !request.options.tiling && backend_->offload() == Offload::automatic;
}

bool Pipeline::has_room_to_keep(const Step& step, const MemoryUse& use) {
    const Offload offload = backend_->offload();
    if (offload != Offload::automatic && offload != Offload::none) return false;
    const Placed placed = place(networks_of(step), use, /*alone=*/true);
    const bool whole =
        std::find(placed.kept.blocks.begin(), placed.kept.blocks.end(), false) == placed.kept.blocks.end();
    return placed.fits && whole && !placed.passing;
}

Pipeline::Fit Pipeline::fit(const ClipPlan& plan, Step& step, const Request& request, std::array<int64_t, 3> shape,
                            MemoryUse& use) {
    Fit found{misfit(step, use), std::nullopt};
    if (step.kind == StepKind::denoise && found.misfit.empty() && networks_->transformer &&
        networks_->transformer->text_is_static()) {
        step.keeps_text = true;
        MemoryUse more = denoising_memory(step.settings, sizes_of(plan, step, request));
        more.host += always_taken;
        step.keeps_text = has_room_to_keep(step, more);
        if (step.keeps_text) use = more;
    }
    if (step.kind != StepKind::decode_pictures || !may_choose_tiles(request)) return found;
    for (const Tiling& tiles : smaller_tilings()) {
        if (found.misfit.empty()) break;
        use = networks_->video_decoder->measure(shape, tiles);
        use.host += always_taken;
        found = {misfit(step, use), tiles};
    }
    if (!found.misfit.empty()) found.tiles.reset();
    return found;
}

double Pipeline::reading_seconds(const std::vector<Weights*>& networks, size_t bytes) {
    const MappedFile* file = nullptr;
    for (size_t i = 0; i < networks.size() && !file; ++i) file = networks[i]->file();
    const double speed = bytes && file ? file->speed() : 0;
    return speed > 0 ? static_cast<double>(bytes) / speed : 0;
}

void Pipeline::tell_of(const Placed& placed) const {
    if (const auto passing = std::count(placed.kept.blocks.begin(), placed.kept.blocks.end(), false);
        passing && backend_->offload() == Offload::automatic)
        log(20, "[memory] " + std::to_string(passing) + " of " + std::to_string(placed.blocks) +
                    " blocks are brought for each use, as there is no room for all");
    if (placed.passing)
        log(20, "[memory] " + spell_bytes(placed.passing) + " of " + spell_bytes(placed.mapped) +
                    " of weights are read for each use, as there is no room for all");
}

}  // namespace sdltx
