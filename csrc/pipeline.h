// A loaded model and everything that can be done with it. The one class behind the Python binding and the C ABI.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gemma3/encoder.h"
#include "gemma3/tokenizer.h"
#include "ltxv/audio_vae.h"
#include "ltxv/sampler.h"
#include "ltxv/text_projection.h"
#include "ltxv/transformer.h"
#include "ltxv/video_vae.h"
#include "ltxv/vocoder.h"
#include "types.h"

namespace sdltx {

struct LoadOptions {
    std::string device = "cpu";
    bool exact = false;  // every operation in float32
    int threads = 0;     // 0 = one per core
    Offload offload = Offload::none;
    Progress progress;
};

struct SampleOptions {
    int64_t width = 0, height = 0, num_frames = 0;  // pixels, pixels, frames
    double frame_rate = 0;                          // frames per second
    std::optional<int64_t> num_inference_steps;     // of the checkpoint's own schedule
    std::vector<float> sigmas;                      // in place of a schedule when not empty
    uint64_t seed = 0;
    Array video_noise, audio_noise;  // in the shapes of Latents; drawn from the seed when empty
    Progress progress;
};

// What a checkpoint is and how it is meant to be used.
struct ModelInfo {
    std::string version;
    bool distilled = false;
    std::string note;                // for its users; may be empty
    std::vector<std::string> parts;  // of: "transformer", "text encoder", "text projection", "video decoder",
                                     // "audio decoder", "vocoder"
    int64_t width = 768, height = 512, num_frames = 121, num_inference_steps = 30;
    double frame_rate = 24;
};

// One run at a time: a call from a second thread throws Error(busy), a call from a callback of the running one works
// between its units of work. After close() every call that computes throws Error(invalid_request).
class Pipeline {
 public:
    // Holds the pipeline for the calling thread; every call takes one, and a caller may around several.
    class Turn {
     public:
        explicit Turn(Pipeline& pipeline);
        ~Turn();
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;

     private:
        Pipeline& pipeline_;
    };

    // Opens files and folders in any order as one name space and reads what describes the weights; the weights come
    // when they are needed. Throws Error(model_file | model_mismatch | backend).
    Pipeline(const std::vector<std::string>& paths, const LoadOptions& options);

    const ModelInfo& info() const { return info_; }
    // Not after close().
    Backend& backend() { return *backend_; }
    // Names of the devices, separated by commas.
    std::string device();
    // Throws Error(model_mismatch) that names every one of `parts` that was not among the files.
    void require(const std::vector<std::string>& parts) const;
    // Names of the tensors of the files that no part has a use for.
    std::vector<std::string> unused_tensors();
    // Gives all memory and files back.
    void close();

    // Token ids of a prompt as it is encoded: surrounding white space stripped, <bos> first, at most 1024.
    std::vector<int32_t> tokenize(const std::string& prompt);
    // Gemma's hidden states (L+1, N, hidden) of a prompt.
    Array hidden_states(const std::string& prompt);
    Context encode(const std::string& prompt, const Progress& progress);

    // The noise levels that `options` ask for.
    std::vector<float> sigmas(const SampleOptions& options) const;
    // Throws what sample() would throw for sizes, rate, steps and sigmas; for use before a prompt is encoded.
    void check(const SampleOptions& options) const;
    // A denoising loop at its start; `context` must outlive it. step() it here.
    std::unique_ptr<Sampler> sampler(const Context& context, const SampleOptions& options);
    void step(Sampler& sampler, const Progress& progress = {});
    Latents sample(const Context& context, const SampleOptions& options);
    // One call of the transformer.
    struct VelocityInput {
        StreamInput stream;
        const Positions* positions = nullptr;
        const Array* context = nullptr;
    };
    Velocity velocity(const VelocityInput& video, const VelocityInput* audio, const Perturbation& perturbation);

    // Decodes video latents (C, F', H', W') tile by tile; frames are handed out in order as they are ready, RGB in [-1,
    // 1].
    void decode(const Array& video, const Tiling& tiling, const VideoDecoder::Sink& sink, const Progress& progress);
    // Bytes of working memory and inputs that decode() takes at a time for latents (F', H', W').
    size_t decode_memory(std::array<int64_t, 3> shape, const Tiling& tiling);
    // The same of the largest block of sample() for a clip of this size, on all devices together. Nothing is allocated.
    size_t sample_memory(const SampleOptions& options);
    // What is held on each device, the one for computing first.
    struct DeviceMemory {
        std::string device;
        size_t weights = 0, inputs = 0, working = 0;  // bytes
        size_t mapped = 0;                            // of weights that are used where they lie in the files
    };
    std::vector<DeviceMemory> memory();

    // Decodes audio latents (C, T, mel bins) to 48 kHz stereo, (4 (T - 1) + 1) / 100 seconds long. `piece_seconds` of
    // sound are synthesised at a time, 0 = all at once; the pieces meet without a seam.
    Waveform decode_audio(const Array& audio, double piece_seconds, const Progress& progress);

    // Keeps the tensors of stages that match one of `patterns` from now on, and forgets earlier ones; see Trace.
    void trace(std::vector<std::string> patterns);
    std::map<std::string, Array> traced();

 private:
    // Holds the weights of `networks` while a stage of a run needs them, and gives the working memory back after it.
    class Stage {
     public:
        Stage(Pipeline& pipeline, std::vector<Weights*> networks, const Progress& progress);
        ~Stage();
        Stage(const Stage&) = delete;
        Stage& operator=(const Stage&) = delete;

     private:
        Pipeline& pipeline_;
        std::vector<Weights*> networks_;
    };
    std::vector<Weights*> all_weights() const;
    Trace* tracing() { return trace_.patterns.empty() ? nullptr : &trace_; }

    std::mutex turn_mutex_;
    std::thread::id turn_owner_;
    int turn_depth_ = 0;
    bool closed_ = false;

    std::optional<ModelFiles> files_;
    std::unique_ptr<Backend> backend_;
    Workspace workspace_;
    ModelConfig config_;
    ModelInfo info_;
    std::unique_ptr<Tokenizer> tokenizer_;
    std::unique_ptr<Gemma3Encoder> text_encoder_;
    std::unique_ptr<TextProjection> text_projection_;
    std::unique_ptr<Transformer> transformer_;
    std::unique_ptr<VideoDecoder> video_decoder_;
    std::unique_ptr<AudioDecoder> audio_decoder_;
    std::unique_ptr<Vocoder> vocoder_;
    Trace trace_;
};

// (x + 1) / 2 of finished frames, clamped, as bytes; truncated as the reference does.
Frames to_bytes(const Array& frames);

}  // namespace sdltx
