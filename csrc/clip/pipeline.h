// A loaded model and everything that can be done with it. The one class behind the Python binding and the C ABI.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/platform.h"
#include "base/types.h"
#include "model/info.h"
#include "model/networks.h"
#include "plan.h"
#include "run.h"
#include "stage.h"
#include "step_memory.h"

namespace sdltx {

struct LoadOptions {
    std::string device = "cpu";            // see Backend
    bool exact = false;                    // every operation in float32
    int threads = 0;                       // of the CPU; 0 = one per core
    Offload offload = Offload::automatic;  // how long weights stay
    Progress progress;                     // of the constructor only
    MemoryLimits limits{};
};

// Threads: any thread may call, one at a time. A call while another thread's runs throws Error(busy); a call from a
// callback of the running one works between its units of work, and throws Error(busy) inside of one. Callbacks run on
// the calling thread.
// Ownership: arguments are read until the call returns, unless a line here says longer; results belong to the caller.
// Errors: besides what each call lists, those that compute throw Error(cancelled) when a callback says stop,
// Error(out_of_memory), Error(backend) when a device fails or values are not finite, and what the callbacks throw,
// unchanged; whatever they threw, the pipeline can be used again. After close() they throw Error(invalid_request).
class SDLTX_EXPORT Pipeline {
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
        std::optional<WholeSystemCalls> whole_system_calls_;  // with a worker
    };

    // Opens files and folders in any order as one name space and reads what describes the weights; the weights come
    // when they are needed. Throws Error(model_file | model_mismatch | backend).
    Pipeline(const std::vector<std::string>& paths, const LoadOptions& options);
    ~Pipeline();

    const ModelInfo& info() const { return info_; }
    // Not after close().
    Backend& backend() { return *backend_; }
    // Names of the devices, separated by commas.
    std::string device();
    // Throws Error(model_mismatch) that names every one of `parts` that was not among the files.
    void require(const std::vector<Part>& parts) const;
    // Tells decoders apart: a number made of their small weights, in hexadecimal digits. Throws Error(model_mismatch)
    // without a decoder.
    std::string decoder_fingerprint();
    // The same of what makes contexts of prompts. Throws Error(model_mismatch) without it.
    std::string encoder_fingerprint();
    // The files that are open, those of folders by their names.
    std::vector<std::string> opened();
    // Bytes of text encoder and projection as they are stored.
    size_t encoder_bytes();
    // Channels of video latents; 0 without transformer and decoder.
    int64_t latent_channels() const;
    // Names of the tensors of the files that no part has a use for.
    std::vector<std::string> unused_tensors();
    // Paths of the latent upscalers in the folders that were given, and what each does: "space x2".
    std::vector<std::pair<std::string, std::string>> upscalers() const;
    // Gives all memory and files back.
    void close();

    // Token ids of a prompt (UTF-8) as it is encoded: surrounding white space stripped, <bos> first, at most 1024; more
    // are cut off with a warning in the log. Throws Error(model_mismatch) without a text encoder.
    std::vector<int32_t> tokenize(const std::string& prompt);
    // Gemma's hidden states (L+1, N, hidden) of a prompt.
    Array hidden_states(const std::string& prompt);
    // What the transformer attends to: video (1024, width), audio (1024, width). Progress counts Gemma's layers, then
    // the projection. Throws Error(model_mismatch) without text encoder and projection.
    Context encode(const std::string& prompt, const Progress& progress);

    // A prompt as the text encoder writes it out, which must be an instruct Gemma 3. system: what it is told to do;
    // empty: a text of ours. Progress counts tokens, of at most 512. Throws Error(model_mismatch) for a model that does
    // not write, Error(invalid_request) for texts that control it, or are too long.
    std::string enhance(const std::string& prompt, const std::string& system, uint64_t seed, const Progress& progress);
    // What it is given for that.
    std::vector<int32_t> writing_prompt(const std::string& prompt, const std::string& system) const;
    // Scores (1 + M, vocabulary) of what follows `ids`, and of what follows each of M ids after them.
    Array next_scores(const std::vector<int32_t>& ids, const std::vector<int32_t>& then, const Progress& progress = {});

    // How many seconds a clip of these contexts is to last, by the model's duration head. Throws Error(model_mismatch)
    // without one.
    double duration(const Context& context);

    // What a request comes to. Upscaler and distilled LoRA that a recipe wants and nobody names are looked for in the
    // folders that were given. Throws Error(invalid_request), also for what check() in options.h refuses,
    // Error(model_mismatch) for what a recipe that was asked for cannot do without, Error(model_file | model_mismatch)
    // for files that are no upscalers.
    ClipPlan resolve(const Request& request) const;
    // The settings of a request that asks for nothing; also after close().
    SampleSettings defaults() const { return resolve_stage(ClipOptions{}); }
    // Where the length follows the prompt: the plan with that length, which the request then has, too; else the same
    // plan. Throws what duration() and resolve() throw.
    ClipPlan settle_length(const ClipPlan& plan, Request& request, const Context& context);
    // What of it is probably not meant; see doubts() in settings.h.
    std::vector<std::string> doubts(const ClipPlan& plan) const;
    // What running it would throw for the LoRAs, and for the frames and strengths of pictures, which are not looked at.
    // The LoRAs stay open for it.
    void check(const ClipPlan& plan, const Request& request);
    // What a stage is made of besides prompts.
    struct Inputs {
        Spec video, audio;                  // what is there as latents
        std::vector<Condition> conditions;  // pictures, which become keyframes
        std::vector<LoraFile> loras;
        DrawNoise draw{};         // noise of steps; null: from the seed
        bool keeps_text = false;  // see TransformerRun
    };
    // A denoising loop at its start, to be stepped here; the contexts must outlive it, and so must the pipeline. For
    // CFG without `negative` the reference's negative prompt is encoded, once. Throws Error(invalid_request) for
    // contexts and noise of other shapes and for conditions that cannot be, Error(model_mismatch) without a
    // transformer, or without a text encoder or video encoder that is needed.
    std::unique_ptr<Sampler> sampler(const Context& context, const Context* negative, const SampleSettings& settings,
                                     const Inputs& inputs, const Progress& progress = {});
    // Progress counts the blocks of the transformer over all estimates.
    void step(Sampler& sampler, const Progress& progress = {});
    // What is known of the clip after each step: its clean estimate. Returns false to cancel.
    using OnStep = std::function<bool(int64_t done, int64_t steps, const Latents& estimate)>;
    // sampler() and all its steps. Throws what they throw.
    Latents sample(const Context& context, const Context* negative, const SampleSettings& settings,
                   const Inputs& inputs, const Progress& progress, const OnStep& on_step = {});
    // The same for a clip: all its stages, with what comes between them; pictures are encoded for each stage.
    // second_noise: of a second stage; empty: drawn.
    Latents sample(const Context& context, const Context* negative, const ClipPlan& plan, const Request& request,
                   const Noise& second_noise, const Progress& progress, const OnStep& on_step = {});
    // Gives a job its plan, or its failure. Throws Error(invalid_request) after close() alone.
    void plan(Job& job) const;
    // Runs jobs whose plans are those of their requests here, part of the model by part; failures of a job are in it,
    // and the others go on. Latents stay in the jobs. Throws Error(cancelled) when an event says so.
    void run(std::vector<Job>& jobs, const RunEvents& events);
    // How far the run is that goes on, or was the last. Any thread may ask at any time.
    WholeProgress whole_progress() const;
    // Latents with more pixels or more frames: what the file of an upscaler makes of them. More frames last as long as
    // before, at a higher rate; the sound stays. Throws Error(model_file | model_mismatch) for another file,
    // Error(invalid_request) for latents of another model or a size that it cannot bring forth.
    Latents upsample(const Latents& latents, const std::string& upscaler, const Progress& progress);
    // One call of the transformer.
    struct VelocityInput {
        StreamInput stream;
        const Positions* positions = nullptr;
        const Array* context = nullptr;
    };
    Velocity velocity(const VelocityInput& video, const VelocityInput* audio, const Perturbation& perturbation,
                      const std::vector<LoraFile>& loras = {});

    // Throws Error(invalid_request) for latents of these shapes that the decoders which are there do not take; null for
    // what is not there.
    void check_latents(const std::vector<int64_t>* video, const std::vector<int64_t>* audio);
    // Decodes video latents (C, F', H', W') tile by tile; frames are handed out in order as they are ready, RGB in [-1,
    // 1]. Throws Error(invalid_request) for latents that belong to no clip and tilings that do not advance,
    // Error(model_mismatch) without a decoder.
    void decode(const Array& video, const Tiling& tiling, const VideoDecoder::Sink& sink, const Progress& progress);
    // Frames -> normalised video latents; see VideoEncoder. Throws Error(model_mismatch) without an encoder.
    Array encode_video(const Footage& footage, const Tiling& tiling, const Progress& progress);
    // What each step of a plan takes; nothing where a part of the model is not there. Prompts have the most tokens that
    // count. Pictures count by their frames. Nothing is allocated and no weight is read. Throws what check() throws.
    std::vector<StepMemory> estimate(ClipPlan plan, const Request& request);
    // What is held on each device, the one for computing first.
    struct DeviceMemory {
        std::string device;
        size_t weights = 0, inputs = 0, working = 0;  // bytes
        size_t mapped = 0;                            // of weights that are used where they lie in the files
    };
    std::vector<DeviceMemory> memory();

    // Decodes audio latents (C, T, mel bins) to 48 kHz stereo, (4 (T - 1) + 1) / 100 seconds long. `piece_seconds` of
    // sound are synthesised at a time, 0 = all at once; the pieces meet without a seam. Throws as decode().
    Waveform decode_audio(const Array& audio, double piece_seconds, const Progress& progress);

    // Stereo sound (2, n) at any rate -> normalised audio latents (C, T, mel bins), 25 a second. Throws
    // Error(invalid_request) for another number of channels and sound that is too short, Error(model_mismatch) without
    // an audio encoder.
    Array encode_audio(const Waveform& sound);

    // Keeps the tensors of stages that match one of `patterns` from now on, and forgets earlier ones; see Trace.
    void trace(std::vector<std::string> patterns);
    std::map<std::string, Array> traced();
    std::map<std::string, int64_t> traced_runs();  // how often each of them was computed

 private:
    // Holds the weights of `networks` while a stage of a run needs them, and gives the working memory back after it.
    class Hold {
     public:
        // use: what will be computed in, as far as known.
        Hold(Pipeline& pipeline, std::vector<Weights*> networks, const Progress& progress, const MemoryUse& use = {});
        ~Hold();
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;

     private:
        Pipeline& pipeline_;
        std::vector<Weights*> networks_;
    };
    // The same of the text encoder, with what it writes with.
    class WritingHold {
     public:
        WritingHold(Pipeline& pipeline, const Progress& progress, const MemoryUse& use);
        ~WritingHold();
        WritingHold(const WritingHold&) = delete;
        WritingHold& operator=(const WritingHold&) = delete;

     private:
        Pipeline& pipeline_;
        std::optional<Hold> hold_;
    };
    class Runner;
    void require_writing() const;
    // Whether a request wants its prompt written out. Throws Error(model_mismatch) if that cannot be.
    bool writes(const Request& request) const;
    // What is to be written out.
    static std::string idea_of(const Request& request);
    MemoryUse writing_memory(const std::string& prompt, const std::string& system);
    static constexpr double sound_piece_seconds = 4;  // of a run
    // Throws Error(model_mismatch) for what the model has no part for.
    void check_options(const ClipPlan& plan) const;
    // check() of what is no LoRA.
    void check_inputs(const ClipPlan& plan, const Request& request);
    double operations(const Step& step) const;
    // Throws Error(model_mismatch) unless the context of the model's negative prompt is there or can be made.
    void require_negative() const;
    // The pictures with their latents in place of pixels.
    std::vector<Condition> encoded(std::vector<Condition> pictures, const SampleSettings& settings,
                                   const Progress& progress);
    // All stages of a job that is encoded, with what comes between them. `on_begin` hears which begins.
    Latents denoise(const Context& context, const Context* negative, const Job& job, const Progress& progress,
                    const OnStep& on_step, const std::function<void(const Step&)>& on_begin = {});
    // The weights that encoding prompts needs.
    std::vector<Weights*> encoding();
    void tell(const WholeProgress& whole);
    SampleSettings resolve_stage(const ClipOptions& options) const;
    void plan_two_stages(const Request& request, const ClipOptions& options, ClipPlan& plan) const;
    // What recipes want and nobody named, among the files of the folders; empty if it is not there.
    std::string find_upscaler() const;
    std::string find_distilled_lora() const;
    // What a stage of a plan runs with: all but noise and latents of a stage before.
    static Inputs inputs_of(const ClipPlan& plan, const Step& stage, const Job::Given& given, const Array& sound);
    // The same by sizes, before anything is encoded.
    Inputs sizes_of(const ClipPlan& plan, const Step& stage, const Request& request) const;
    // Stacks of threads, and what libraries take once they compute: as measured.
    static constexpr size_t always_taken = size_t{13} << 20;
    // What is computed in by each step of a plan; see estimate().
    static std::array<int64_t, 3> shape_of(const Latents& latents);
    // latents: that are only decoded; null: of the plan. wanted: which steps; empty: all.
    std::vector<MemoryUse> measure(const ClipPlan& plan, const Request& request, const Latents* latents = nullptr,
                                   const std::function<bool(const Step&)>& wanted = {});
    // Bytes of the contexts, which are there until the last denoising.
    size_t contexts_of(const SampleSettings& settings) const;
    MemoryUse denoising_memory(const SampleSettings& settings, const Inputs& inputs);
    // The weights that a step needs.
    std::vector<Weights*> networks_of(const Step& step);
    // The LoRAs of these files, which are opened once as long as they are asked for and do not change; null for none.
    std::shared_ptr<Loras> loras(const std::vector<LoraFile>& files);
    // Closes all that are not in `kept`.
    void keep_loras(const std::vector<LoraFile>& kept);
    // The weights that denoising needs.
    std::vector<Weights*> denoising(const Loras* loras);
    // What stays of networks that are used together, beside what is computed in; by what is free.
    struct Placed {
        Weights::Kept kept;
        bool fits;                  // at all
        std::vector<size_t> own;    // bytes of weights in memory of their own, by device
        size_t mapped;              // where they lie in files
        size_t passing;             // of them, that are read for each use
        size_t brought;             // of own, to devices, for each use
        size_t blocks;              // of theirs
        std::vector<size_t> room;   // that is free for weights, by device
        std::vector<size_t> least;  // that weights need of it
    };
    // alone: when others are let go where that is possible.
    Placed place(const std::vector<Weights*>& networks, const MemoryUse& use, bool alone) const;
    // Decides it for networks that are acquired next, and lets go of others where they are in the way.
    void make_room(const std::vector<Weights*>& networks, const MemoryUse& use);
    void tell_of(const Placed& placed) const;
    // Why no placement makes a step possible; empty if one does.
    std::string misfit(const Step& step, const MemoryUse& use);
    // The same, when pictures may be decoded in smaller tiles: with those that were chosen, and what is used then.
    struct Fit {
        std::string misfit;
        std::optional<Tiling> tiles;  // others than asked for
    };
    // Sets what the step does by the room that there is.
    Fit fit(const ClipPlan& plan, Step& step, const Request& request, std::array<int64_t, 3> shape, MemoryUse& use);
    bool has_room_to_keep(const Step& step, const MemoryUse& use);
    bool may_choose_tiles(const Request& request) const;
    // What an upscaler's weights take, whose file is open only while it runs.
    Weights::Size upscaler_size(const std::string& path) const;
    // Seconds to read so much of the files of networks; 0 if it is not known.
    static double reading_seconds(const std::vector<Weights*>& networks, size_t bytes);
    // Networks and LoRAs that are there besides, and not in use.
    std::vector<Weights*> others(const std::vector<Weights*>& networks) const;
    void release();  // everything, in the order in which it depends on each other
    Trace* tracing() { return trace_.patterns.empty() ? nullptr : &trace_; }

    // They stay while they are held, also when another thread closes the pipeline.
    std::shared_ptr<const ModelFiles> files() const;

    mutable std::mutex turn_mutex_;
    std::thread::id turn_owner_;
    int turn_depth_ = 0;
    bool closed_ = false;
    WholeProgress whole_;
    int holds_ = 0;  // that are going on, one in the other

    std::shared_ptr<const ModelFiles> files_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Workspace> workspace_;
    ModelConfig config_;
    ModelInfo info_;
    std::optional<Networks> networks_;
    std::optional<Context> default_negative_;
    std::vector<std::shared_ptr<Lora>> loras_;  // that are open
    Trace trace_;
};

}  // namespace sdltx
