#include "stream.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace sdltx {

Stream::Stream(std::vector<Weights*> networks)
    : networks_(std::move(networks)),
      brings_(!networks_.front()->backend().remote() && !networks_.front()->backend().uses_host_memory()) {}

Stream::~Stream() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    if (!thread_.joinable()) return;
    // Threads do not survive a fork.
    process_ == ::getpid() ? thread_.join() : thread_.detach();
}

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
    const std::lock_guard<std::mutex> lock(stream.mutex_);
    // The one before may have ended in its middle.
    const size_t n = stream.blocks();
    stream.now_ = n ? (stream.now_ + n - 1) / n * n : 0;
    stream.end_ = stream.now_ + n;
    stream.sweeping_ = true;
}

Stream::Sweep::~Sweep() {
    std::unique_lock<std::mutex> lock(stream_.mutex_);
    stream_.sweeping_ = false;
    stream_.changed_.wait(lock, [this] { return !stream_.bringing_; });
}

void Stream::Sweep::enter(size_t block) {
    {
        std::unique_lock<std::mutex> lock(stream_.mutex_);
        stream_.start();
        stream_.now_ = stream_.end_ - stream_.blocks() + block;
        stream_.read_ = std::max(stream_.read_, stream_.now_ + 1);
        stream_.brought_ = std::max(stream_.brought_, stream_.now_ + 1);
        stream_.changed_.notify_all();
        // What is being brought is this block, or will be soon.
        stream_.changed_.wait(lock, [this] { return !stream_.bringing_ || stream_.brought_ > stream_.now_ + 1; });
    }
    for (Weights* w : stream_.networks_) w->enter(block);
}

void Stream::Sweep::meanwhile(size_t block) {
    const Backend& backend = stream_.networks_.front()->backend();
    if (!backend.remote() || block + 1 == stream_.blocks()) return;
    for (Weights* w : stream_.networks_) w->enter(block + 1);
}

void Stream::Sweep::leave(size_t block) {
    for (Weights* w : stream_.networks_) w->leave(block);
    const std::lock_guard<std::mutex> lock(stream_.mutex_);
    stream_.now_ = stream_.end_ - stream_.blocks() + block + 1;
}

void Stream::work() {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto brings = [&] { return brings_ && sweeping_ && brought_ < end_ && brought_ <= now_ + bring_ahead; };
    const auto reads = [&] { return read_ <= now_ + read_ahead; };
    while (true) {
        changed_.wait(lock, [&] { return stop_ || brings() || reads(); });
        if (stop_) return;
        if (brings()) {
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
            changed_.notify_all();
        } else {
            const size_t block = read_++ % blocks();
            lock.unlock();
            for (Weights* w : networks_) w->read_ahead(block, stop_);
            lock.lock();
        }
    }
}

}  // namespace sdltx
