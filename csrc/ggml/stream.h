// Blocks of networks that run in turn, again and again: a thread brings them ahead of their use.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "weights.h"

namespace sdltx {

// One thread computes and calls; another reads. What the second fails at is tried again, and told, by the first.
class Stream {
 public:
    // Blocks of the same number in each of `networks` run together, such as a transformer's and those of its LoRAs;
    // after the last comes the first again. They must outlive this.
    explicit Stream(std::vector<Weights*> networks);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // While one lives, the blocks of one sweep over the networks, whose weights outside the blocks are there, are
    // brought; else only pages of files are read.
    class Sweep {
     public:
        explicit Sweep(Stream& stream);
        ~Sweep();
        Sweep(const Sweep&) = delete;
        Sweep& operator=(const Sweep&) = delete;

        // The block is there afterwards. Throws what Weights::enter() throws.
        void enter(size_t block);
        // To be called while `block` is computed: brings the next one where only this thread may.
        void meanwhile(size_t block);
        // It has done its work for now.
        void leave(size_t block);

     private:
        Stream& stream_;
    };

 private:
    // Whether this is a child process, where the thread is not, and may have left anything half done.
    bool forked() const;
    size_t blocks() const { return networks_.front()->num_blocks(); }
    void start();
    void come_to(size_t number);
    void work();
    void read_piece(std::unique_lock<std::mutex>& lock);

    std::vector<Weights*> networks_;
    bool brings_;  // the thread uses the devices beside the one that computes; the host has nothing to win by it
    std::mutex mutex_;
    // A child process leaks it: its destruction would wait for a thread that is not there.
    std::unique_ptr<std::condition_variable> changed_ = std::make_unique<std::condition_variable>();
    // Numbers count on from sweep to sweep; the block is what remains of the division by their count.
    size_t now_ = 0, brought_ = 0, end_ = 0;  // that is computed; to be brought next; of the sweep
    size_t read_ = 0, ahead_ = 0;             // that is being read, and bytes that were read of blocks after now_
    std::vector<Weights::Range> left_;        // of it
    std::vector<Weights::Range> passed_;      // that were used, and are not to stay
    bool sweeping_ = false, bringing_ = false, begun_ = false;
    std::atomic<bool> stop_{false};
    std::thread thread_;
    int process_ = 0;  // that it runs in
};

}  // namespace sdltx
