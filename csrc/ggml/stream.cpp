#include "stream.h"

#include <unistd.h>

#include <algorithm>
#include <new>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace sdltx {

Stream::Stream(std::vector<Weights*> networks)
    : networks_(std::move(networks)),
      brings_(!networks_.front()->backend().remote() && !networks_.front()->backend().uses_host_memory()) {}

Stream::~Stream() {
    if (forked()) {
        thread_.detach();
        static_cast<void>(changed_.release());
        return;
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    changed_->notify_all();
    if (thread_.joinable()) thread_.join();
}

bool Stream::forked() const { return thread_.joinable() && process_ != ::getpid(); }

void Stream::start() {
    if (thread_.joinable() || blocks() < 2) return;
    try {
        thread_ = std::thread([this] { work(); });
        process_ = ::getpid();
    } catch (const std::system_error&) {
        log(20, "[load] there is no thread to read weights ahead; it goes on without");
    }
}

Stream::Sweep::Sweep(Stream& stream) : stream_(stream) {
    if (stream.forked()) return;
    const std::lock_guard<std::mutex> lock(stream.mutex_);
    // The one before may have ended in its middle.
    const size_t n = stream.blocks();
    stream.come_to(n ? (stream.now_ + n - 1) / n * n : 0);
    stream.end_ = stream.now_ + n;
    stream.sweeping_ = true;
}

Stream::Sweep::~Sweep() {
    if (stream_.forked()) return;
    std::unique_lock<std::mutex> lock(stream_.mutex_);
    stream_.sweeping_ = false;
    stream_.changed_->wait(lock, [this] { return !stream_.bringing_; });
}

void Stream::Sweep::enter(size_t block) {
    if (!stream_.forked()) {
        std::unique_lock<std::mutex> lock(stream_.mutex_);
        stream_.start();
        stream_.come_to(stream_.end_ - stream_.blocks() + block);
        stream_.brought_ = std::max(stream_.brought_, stream_.now_ + 1);
        stream_.changed_->notify_all();
        // What is being brought is this block, or will be soon.
        stream_.changed_->wait(lock, [this] { return !stream_.bringing_ || stream_.brought_ > stream_.now_ + 1; });
    }
    for (Weights* w : stream_.networks_) w->enter(block);
}

void Stream::Sweep::meanwhile(size_t block) {
    const Backend& backend = stream_.networks_.front()->backend();
    if (!backend.remote() || block + 1 == stream_.blocks() || !stream_.networks_.front()->kept().brings_ahead) return;
    for (Weights* w : stream_.networks_) w->enter(block + 1);
}

void Stream::Sweep::leave(size_t block) {
    std::vector<Weights::Range> passing;
    for (Weights* w : stream_.networks_) {
        w->leave(block);
        for (const Weights::Range& range : w->passing(block)) passing.push_back(range);
    }
    if (passing.empty()) return;
    if (!stream_.thread_.joinable() || stream_.forked()) {
        for (const Weights::Range& range : passing) range.file->drop(range.begin, range.bytes);
        return;
    }
    const std::lock_guard<std::mutex> lock(stream_.mutex_);
    stream_.passed_.insert(stream_.passed_.end(), passing.begin(), passing.end());
    stream_.changed_->notify_all();
}

void Stream::come_to(size_t number) {
    if (number == now_) return;
    now_ = number;
    ahead_ = 0;  // what was read of this block counts no more; at most one block lies between
    if (read_ >= now_) return;
    read_ = now_;
    left_.clear();
    begun_ = false;
}

void Stream::read_piece(std::unique_lock<std::mutex>& lock) {
    constexpr size_t piece = size_t{16} << 20;
    if (!begun_) {
        for (Weights* w : networks_)
            for (const Weights::Range& range : w->ranges(read_ % blocks())) left_.push_back(range);
        std::reverse(left_.begin(), left_.end());
        begun_ = true;
    }
    if (left_.empty()) {
        ++read_;
        begun_ = false;
        return;
    }
    Weights::Range& range = left_.back();
    const Weights::Range now{range.file, range.begin, std::min(piece, range.bytes)};
    range.begin += now.bytes;
    range.bytes -= now.bytes;
    if (range.bytes == 0) left_.pop_back();
    if (read_ > now_) ahead_ += now.bytes;
    lock.unlock();
    now.file->read(now.begin, now.bytes, stop_);
    lock.lock();
}

void Stream::work() {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto brings = [&] {
        return brings_ && networks_.front()->kept().brings_ahead && sweeping_ && brought_ < end_ &&
               brought_ <= now_ + 1;
    };
    // The whole sweep before it began again, as nothing tells whether it will.
    const auto reads = [&] {
        return read_ <= now_ || (read_ < now_ + blocks() && ahead_ < networks_.front()->kept().ahead);
    };
    while (true) {
        changed_->wait(lock, [&] { return stop_ || !passed_.empty() || brings() || reads(); });
        if (stop_) return;
        if (!passed_.empty()) {
            const std::vector<Weights::Range> passed = std::exchange(passed_, {});
            lock.unlock();
            for (const Weights::Range& range : passed) range.file->drop(range.begin, range.bytes);
            lock.lock();
            continue;
        }
        if (!brings()) {
            try {
                read_piece(lock);
            } catch (const std::bad_alloc&) {
                // The system reads it when it is used.
                left_.clear();
                begun_ = false;
                ++read_;
            }
            continue;
        }
        const size_t block = brought_++ % blocks();
        bringing_ = true;
        lock.unlock();
        try {
            for (Weights* w : networks_) w->enter(block);
        } catch (const std::exception&) {
            // Who needs it will see why.
        }
        lock.lock();
        bringing_ = false;
        changed_->notify_all();
    }
}

}  // namespace sdltx
