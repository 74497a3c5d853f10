/*
 * sdltx: clips with sound from text (LTX-2.3), for programs in C and whatever calls C.
 *
 * The rules of this header hold for every function:
 *
 * - What can fail returns SDLTX_OK (0) or another status, and then sdltx_last_error() has one line that says what is
 *   wrong and what to do. Results come through pointers, which are set to NULL first and stay so on failure. No
 *   exception comes out of a call, and nothing that is passed ends the process.
 * - Arguments are read until the call returns and are never kept. A result belongs to the caller, who gives it to the
 *   _free function of its type; NULL is a no-op there. What a getter gives is borrowed: it is valid until the object
 *   that it came from is freed.
 * - A pointer may be NULL only where it says so. NULL elsewhere, a freed object and a struct of an unknown version are
 *   SDLTX_ERROR_INVALID_REQUEST; a freed object is found out unless another one has taken its place.
 * - Strings are UTF-8 and end with 0. Arrays are dense, in C order (last index fastest). Numbers have stated units.
 * - Structs of options begin with their version and are to be filled by their _init function, which sets every field to
 *   "as the model wants it". A program keeps working with later versions of the library: fields are added at the end,
 *   under a new version number, and what an old version lacks is default. What a clip is asked to be is no struct but
 *   an sdltx_request, whose options have names: those that come later change nothing here.
 * - Threads: different pipelines are independent. One pipeline is used by one thread at a time: a call while another
 *   thread's runs is SDLTX_ERROR_BUSY, and so is a call for the same pipeline from a callback, unless it comes between
 *   two units of work. Callbacks run on the calling thread, within the call, and must not throw, jump out or free the
 *   pipeline. Contexts, latents and videos do not change once they are made and may be read by any thread.
 * - Nothing of the process is changed: no signal handler, no locale, no environment; sdltx_explain_crashes is the one
 *   exception, for those who ask for it. A model file that is cut short while it is in use ends the process (SIGBUS),
 *   unless sdltx_explain_crashes() was called: then it is an error of the call.
 */
#ifndef SDLTX_H
#define SDLTX_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SDLTX_API __attribute__((visibility("default")))
#else
#define SDLTX_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* --- status, version, log --- */

typedef int32_t sdltx_status;
enum {
    SDLTX_OK = 0,
    SDLTX_ERROR_MODEL_FILE = 1,      /* a file is missing, truncated, or not a model */
    SDLTX_ERROR_MODEL_MISMATCH = 2,  /* files do not make up the wanted model, or lack a part that is needed */
    SDLTX_ERROR_OUT_OF_MEMORY = 3,   /* of the host or of a device */
    SDLTX_ERROR_INVALID_REQUEST = 4, /* an argument is outside its range */
    SDLTX_ERROR_CANCELLED = 5,       /* a callback asked to stop */
    SDLTX_ERROR_BACKEND = 6,         /* a device failed or does not exist */
    SDLTX_ERROR_BUSY = 7,            /* the pipeline is in use */
    SDLTX_ERROR_INTERNAL = 8         /* a bug of the library */
};

/* The line of the last call on this thread that failed, "" before that. Valid until the thread's next call that fails.
 */
SDLTX_API const char* sdltx_last_error(void);

/* "0.1.0". Valid for ever. */
SDLTX_API const char* sdltx_version(void);

/* Of this header, and of the library: raised with every change of functions, structs and constants. Before version 1.0
 * of the library a program needs the number that it was built with, from then on that or a higher one.
 */
#define SDLTX_ABI_VERSION 11
SDLTX_API uint32_t sdltx_abi_version(void);

/* Log lines of the whole process: level is 10 (debug), 20 (info), 30 (warning) or 40 (error). May be called on any
 * thread that uses the library. fn NULL: no log, as it is at first. The payload must live until the next sdltx_set_log.
 */
typedef void (*sdltx_log_fn)(int32_t level, const char* line, void* payload);
SDLTX_API void sdltx_set_log(sdltx_log_fn fn, void* payload);

/* For programs, not for libraries: sets handlers of SIGBUS (a model file that was cut short is an error of the call
 * that needs it; all else goes to the handler before) and of uncaught C++ exceptions, which say in a line on stderr why
 * the process ends. Once; later calls do nothing.
 */
SDLTX_API void sdltx_explain_crashes(void);

/* Texts that a call has made, such as JSON. */
SDLTX_API void sdltx_string_free(char* text);

/* --- values --- */

/* float32 values; `shape` has `dims` entries, and what follows them is ignored. data NULL: absent. */
typedef struct sdltx_array {
    const float* data;
    int64_t shape[4];
    int32_t dims;
} sdltx_array;

/* Called before the first and after every unit of work, and between them, with the same numbers, about 20 times a
 * second where the device can be asked. phase: "load", "encode" (prompts and pictures), "denoise", "upscale", "decode",
 * "sound" or "convert". Other than 0 stops the call, usually within a second; it returns SDLTX_ERROR_CANCELLED.
 */
typedef int32_t (*sdltx_progress_fn)(const char* phase, int64_t done, int64_t total, void* payload);

/* --- models --- */

typedef struct sdltx_pipeline sdltx_pipeline;

enum { SDLTX_PRECISION_AUTO = 0, SDLTX_PRECISION_F32 = 1 };
enum { SDLTX_OFFLOAD_NONE = 0, SDLTX_OFFLOAD_STAGE = 1, SDLTX_OFFLOAD_BLOCKS = 2, SDLTX_OFFLOAD_AUTO = 3 };

#define SDLTX_LOAD_OPTIONS_VERSION 2
typedef struct sdltx_load_options {
    uint32_t version;
    int32_t precision;  /* AUTO (default): as the weights are stored; F32: exact, slow, CPU only */
    const char* device; /* "cpu" (also NULL), "auto", "cuda0", "rpc:HOST:PORT"; several with commas share the blocks */
    /* Of the CPU; 0 (default): one per physical core that the process may use. They are OpenMP's, which by itself lets
     * them spin while they wait: on a machine with other work start the process with OMP_WAIT_POLICY=passive and
     * GOMP_SPINCOUNT=300 in its environment, as it reads them before main(). */
    int32_t threads;
    int32_t offload; /* how long weights stay: AUTO (default) as long as there is room, NONE until the pipeline is
                        freed, STAGE for one stage of a run, BLOCKS for one block of a network */
    sdltx_progress_fn progress; /* of sdltx_load only; NULL: none */
    void* progress_payload;
    /* Since version 2: GiB that may be taken at most of the machine, and of each GPU; negative: that are left free; 0
     * (default): no limit but what is there. */
    double max_memory, max_vram;
} sdltx_load_options;
SDLTX_API sdltx_status sdltx_load_options_init(sdltx_load_options* options, uint32_t version);

/* Opens files and folders in any order as one model. What describes the weights is read; the weights come when they
 * are needed, so the files must stay as they are. options: NULL for the defaults.
 */
SDLTX_API sdltx_status sdltx_load(const char* const* paths, size_t num_paths, const sdltx_load_options* options,
                                  sdltx_pipeline** pipeline);

/* Gives all memory and files back. No other call may use the pipeline at the time. */
SDLTX_API void sdltx_pipeline_free(sdltx_pipeline* pipeline);

/* A JSON object: model, version, distilled, preset, negative_prompt, note, defaults (width, height, num_frames,
 * frame_rate, steps), parts (names of those that are there), has_audio, device, latent_channels, unused_tensors (names
 * of what the files hold and no part has a use for).
 */
SDLTX_API sdltx_status sdltx_describe(sdltx_pipeline* pipeline, char** json);

/* What is held on each device, the one that computes first: a JSON list of objects with device and the bytes of
 * weights, mapped (weights that are used where they lie in the files, which the system can take back), inputs (values
 * that live through a run) and working (what is computed, which goes back when a run ends).
 */
SDLTX_API sdltx_status sdltx_memory(sdltx_pipeline* pipeline, char** json);

/* What files are, without loading them: a JSON object, the same as of `sdltx-cli inspect --json` but for checksums.
 * What is wrong with the files is in its lists "problems" and "doubts" and is no error here.
 */
SDLTX_API sdltx_status sdltx_inspect(const char* const* paths, size_t num_paths, char** json);

/* What can compute here: a JSON list of objects with name, description, kind, memory_free, memory_total (bytes). */
SDLTX_API sdltx_status sdltx_devices(char** json);

/* The kinds of checkpoints, and what each makes clips with: a JSON list of objects with name and options of a clip. */
SDLTX_API sdltx_status sdltx_presets(char** json);

/* The ways to make a clip: a JSON list of objects with name, purpose, distilled (whether they are for such
 * checkpoints), stages (1 or 2) and needs (a list of lines for people).
 */
SDLTX_API sdltx_status sdltx_recipes(char** json);

/* What can be made of what: a JSON list of objects with name, purpose and needs (how the command line asks for it).
 * sdltx_resolve tells the one of a request as `task`.
 */
SDLTX_API sdltx_status sdltx_tasks(char** json);

#define SDLTX_CONVERT_OPTIONS_VERSION 1
typedef struct sdltx_convert_options {
    uint32_t version;
    int32_t threads;          /* 0 (default): one per physical core that the process may use */
    const char* type;         /* of the transformer, by llama.cpp's names; NULL: "q8_0"; "keep": as it is stored */
    const char* const* parts; /* of "transformer", "text_projection", "video_vae", "audio_vae", "text_encoder" (that of
                                 LTX-2.5); NULL: the transformer in a .gguf, all but the last in a .safetensors */
    size_t num_parts;
    const char* const* tensor_types; /* pairs: a pattern of tensor names, as of a shell, and the type of those tensors;
                                        the first that fits counts */
    size_t num_tensor_types;         /* pairs */
    const char* imatrix;             /* how much each input matters, a file of llama.cpp's imatrix tool; NULL: none */
    sdltx_progress_fn progress;      /* phase "convert" */
    void* progress_payload;
} sdltx_convert_options;
SDLTX_API sdltx_status sdltx_convert_options_init(sdltx_convert_options* options, uint32_t version);

/* Writes the files of one model as one file of another type: NAME.gguf or NAME.safetensors. `output` is replaced when
 * everything is written, and is as it was if that fails. options: NULL for the defaults.
 */
SDLTX_API sdltx_status sdltx_convert(const char* const* paths, size_t num_paths, const char* output,
                                     const sdltx_convert_options* options);

/* --- prompts --- */

/* Token ids of a text as it is encoded: <bos> first, at most 1,024. The first `capacity` of them are written to ids,
 * which may be NULL for 0 of them; count gets how many there are.
 */
SDLTX_API sdltx_status sdltx_tokenize(sdltx_pipeline* pipeline, const char* text, int32_t* ids, size_t capacity,
                                      size_t* count);

typedef struct sdltx_context sdltx_context;

/* What the transformer attends to for a prompt; more than 1,024 tokens are cut off, with a warning in the log.
 * progress: NULL for none.
 */
SDLTX_API sdltx_status sdltx_encode(sdltx_pipeline* pipeline, const char* prompt, sdltx_progress_fn progress,
                                    void* payload, sdltx_context** context);
SDLTX_API void sdltx_context_free(sdltx_context* context);

/* A context out of values (rows, width) that sdltx_context_get gave; audio NULL or absent: for the picture alone. */
SDLTX_API sdltx_status sdltx_context_new(const sdltx_array* video, const sdltx_array* audio, sdltx_context** context);
/* Borrowed values, (rows, width) each; either may be NULL. */
SDLTX_API sdltx_status sdltx_context_get(const sdltx_context* context, sdltx_array* video, sdltx_array* audio);

/* How many seconds a clip of a prompt is to last, 0 or more, as the model's duration head tells; without one
 * SDLTX_ERROR_MODEL_MISMATCH. With the option duration "auto" clips last so long, within 1 and 20 seconds.
 */
SDLTX_API sdltx_status sdltx_duration(sdltx_pipeline* pipeline, const sdltx_context* context, double* seconds);

/* --- denoising --- */

typedef struct sdltx_latents sdltx_latents;

/* The clean estimate after step `done` of `steps`; it is borrowed for the time of the call. Other than 0 stops. */
typedef int32_t (*sdltx_step_fn)(int64_t done, int64_t steps, const sdltx_latents* estimate, void* payload);

/* Frames first .. first + count - 1, RGB bytes (count, height, width, 3), borrowed for the time of the call. They come
 * in order. Other than 0 stops.
 */
typedef int32_t (*sdltx_frames_fn)(const uint8_t* rgb, int64_t first, int64_t count, int64_t height, int64_t width,
                                   void* payload);

/* What a run tells; any of them may be NULL. To be filled with {SDLTX_CALLBACKS_VERSION} and then by name. */
#define SDLTX_CALLBACKS_VERSION 1
typedef struct sdltx_callbacks {
    uint32_t version;
    int32_t reserved;
    sdltx_progress_fn progress;
    sdltx_step_fn on_step;
    sdltx_frames_fn on_frames; /* frames go here and are not kept, so any length fits; NULL: they are in the video */
    void* payload;             /* of all of them */
} sdltx_callbacks;

/* --- requests --- */

/* What a clip is asked to be; what is not set is what the checkpoint was made for. It does not change while it is used,
 * and may be used any number of times. Options have names, which sdltx_options lists with their kinds, units and
 * ranges (docs/options.md). A name that there is not, and a setter of another kind, are SDLTX_ERROR_INVALID_REQUEST;
 * what no checkpoint could do is told by sdltx_check, and by whatever uses the request.
 */
typedef struct sdltx_request sdltx_request;
SDLTX_API sdltx_status sdltx_request_new(sdltx_request** request);
SDLTX_API void sdltx_request_free(sdltx_request* request);

/* A JSON list of objects: name, kind, group, unit, range (two numbers or null), choices, since, help, docs. */
SDLTX_API sdltx_status sdltx_options(char** json);

/* Of the kinds text, choice, duration ("5s", "auto") and file. */
SDLTX_API sdltx_status sdltx_request_set_text(sdltx_request* request, const char* name, const char* value);
/* Of the kinds whole, real and flag (0 or 1). */
SDLTX_API sdltx_status sdltx_request_set_int(sdltx_request* request, const char* name, int64_t value);
/* Of the kind real. */
SDLTX_API sdltx_status sdltx_request_set_float(sdltx_request* request, const char* name, double value);
/* Of the kinds wholes and reals: lists. */
SDLTX_API sdltx_status sdltx_request_set_ints(sdltx_request* request, const char* name, const int64_t* values,
                                              size_t count);
SDLTX_API sdltx_status sdltx_request_set_floats(sdltx_request* request, const char* name, const double* values,
                                                size_t count);
/* One more of the kind files. */
SDLTX_API sdltx_status sdltx_request_add_text(sdltx_request* request, const char* name, const char* value);
/* One more of the kind loras ("loras", "loras_stage2"): a file, and how strongly it counts, usually 1. */
SDLTX_API sdltx_status sdltx_request_add_lora(sdltx_request* request, const char* name, const char* path,
                                              double strength);
/* Of any kind: as if it had never been set. */
SDLTX_API sdltx_status sdltx_request_unset(sdltx_request* request, const char* name);

/* A picture that the clip shows at one of its frames: RGB bytes (height, width, 3) of any size, scaled to cover the
 * clip and cut on both sides. frame 0: what the clip begins with; negative: from its end. strength 1: as it is, less: a
 * start that is denoised further, 0: no effect. Models learned from frames of videos; Python compresses pictures as
 * H.264 and back first (libx264, with the image_crf of sdltx_info), which this library has no codec for.
 */
SDLTX_API sdltx_status sdltx_request_add_image(sdltx_request* request, const uint8_t* rgb, int64_t height,
                                               int64_t width, int64_t frame, double strength);
/* A sound (1 or more channels, samples) in [-1, 1] that pictures are made for; it is what the clip sounds like. One
 * channel becomes both, of more than two the first two count, silence follows what is too short. NULL: none.
 */
SDLTX_API sdltx_status sdltx_request_set_sound(sdltx_request* request, const sdltx_array* samples, int64_t sample_rate);
/* A film that the options retake, foley and dub work on: RGB bytes (num_frames, height, width, 3), pictures per second,
 * and its sound as above (NULL: it is silent). Size, rate and length of the clip are the film's unless they are set.
 * What stays of it comes out as the same bytes and samples, if the size is the same. rgb NULL: no film.
 */
SDLTX_API sdltx_status sdltx_request_set_film(sdltx_request* request, const uint8_t* rgb, int64_t num_frames,
                                              int64_t height, int64_t width, double frame_rate,
                                              const sdltx_array* samples, int64_t sample_rate);
/* Where a film is made anew, by brightness: a byte for each pixel (num_frames, height, width), of any size; its last
 * frame stays. Cells of 32 x 32 pixels and 8 frames (the first alone) change that are bright for more than half in one
 * of their frames. Pictures alone, unless retake_of says otherwise; with retake within its times. mask NULL: none.
 */
SDLTX_API sdltx_status sdltx_request_set_mask(sdltx_request* request, const uint8_t* mask, int64_t num_frames,
                                              int64_t height, int64_t width);
/* A film that the clip follows by an IC-LoRA: RGB bytes (num_frames, height, width, 3), of which as many count as the
 * clip has; a single picture is there all the time. strength 1: as it is, less: it is noised and denoised, too.
 * attention: a byte for each of its pixels (num_frames, height, width), how strongly it and the clip see each other;
 * NULL: all alike.
 */
SDLTX_API sdltx_status sdltx_request_add_reference(sdltx_request* request, const uint8_t* rgb, int64_t num_frames,
                                                   int64_t height, int64_t width, double strength,
                                                   const uint8_t* attention);
/* Start noise in the shape of the latents; NULL: drawn from the seed. */
SDLTX_API sdltx_status sdltx_request_set_noise(sdltx_request* request, const sdltx_array* video,
                                               const sdltx_array* audio);
/* What is refined, with sigmas that begin below 1; NULL: nothing. */
SDLTX_API sdltx_status sdltx_request_set_initial(sdltx_request* request, const sdltx_latents* latents);

/* Sets what a JSON object has by name, all of it or, on failure, nothing; null stands for what is not set. LoRAs are
 * lists of a path and a strength.
 */
SDLTX_API sdltx_status sdltx_request_read(sdltx_request* request, const char* json);
/* The opposite; pictures, sounds, films, noise and latents are left out. */
SDLTX_API sdltx_status sdltx_request_json(const sdltx_request* request, char** json);

/* Whether there is a model that could do this: what is wrong with options is told before one is loaded. NULL for the
 * defaults.
 */
SDLTX_API sdltx_status sdltx_check(const sdltx_request* request);

/* The prompt of a request as the text encoder writes it out, by its seed and its enhance_system; it must be an instruct
 * Gemma 3. What a request with `enhance` does by itself. sdltx_string_free() gives the text back. progress: NULL for
 * none.
 */
SDLTX_API sdltx_status sdltx_enhance(sdltx_pipeline* pipeline, const sdltx_request* request, sdltx_progress_fn progress,
                                     void* payload, char** prompt);

/* What would run, as a JSON object with every option, also `passes` of the transformer per step, recipe, upscalers,
 * distilled_lora (null: none), task, result_frames (how many pictures come out) and stages: a list of such objects,
 * with their loras (path, strength). Computes nothing. request: NULL for the defaults. A seed that is not given is
 * drawn here; pass it on to repeat it.
 */
SDLTX_API sdltx_status sdltx_resolve(sdltx_pipeline* pipeline, const sdltx_request* request, char** json);

/* What is possible with these options but probably not meant, as a JSON list of lines for people. */
SDLTX_API sdltx_status sdltx_doubts(sdltx_pipeline* pipeline, const sdltx_request* request, char** json);

/* The bytes of memory that the steps of a run take, by what is free now: a JSON object with steps (step; devices:
 * device, weights, mapped, inputs, working; host; memory: the sum, files not counted; passing: of weights, that are
 * read for each use; reading: seconds that this takes, 0 if not known; brought: of weights, that are copied to devices
 * for each use; tiles: four numbers of the tiling that is decoded with, if what was asked for does not fit, else null;
 * misfit: why the step cannot be, else empty; operations: about how many multiply-adds it takes) and memory, the most
 * of them. Nothing is allocated and no weight is read. NULL for the defaults.
 */
SDLTX_API sdltx_status sdltx_estimate(sdltx_pipeline* pipeline, const sdltx_request* request, char** json);

/* --- running --- */

/* Denoises. negative: what the clip is guided away from; NULL: the model's negative prompt, if there is guidance. The
 * prompts of the request are not looked at. request and callbacks: NULL for the defaults, and for none.
 */
SDLTX_API sdltx_status sdltx_sample(sdltx_pipeline* pipeline, const sdltx_context* context,
                                    const sdltx_context* negative, const sdltx_request* request,
                                    const sdltx_callbacks* callbacks, sdltx_latents** latents);
SDLTX_API void sdltx_latents_free(sdltx_latents* latents);

/* Latents out of values: video (channels, F', H', W'), audio (channels, T, mel bins), frames per second. One of the two
 * may be NULL or absent; sound alone can be decoded without pictures.
 */
SDLTX_API sdltx_status sdltx_latents_new(const sdltx_array* video, const sdltx_array* audio, double frame_rate,
                                         sdltx_latents** latents);
/* Borrowed values, in these shapes; any of the three may be NULL. data is NULL where there are no pictures or no sound.
 */
SDLTX_API sdltx_status sdltx_latents_get(const sdltx_latents* latents, sdltx_array* video, sdltx_array* audio,
                                         double* frame_rate);
/* What they were sampled with, as sdltx_resolve gives it, so with the seed (null if all noise was given); "{}" of
 * latents that were not sampled. Borrowed.
 */
SDLTX_API sdltx_status sdltx_latents_settings(const sdltx_latents* latents, const char** json);

/* Sound (2, num_samples) in [-1, 1] at any rate -> latents of sound alone, 25 a second. Decoding is the opposite;
 * neither is exact.
 */
SDLTX_API sdltx_status sdltx_encode_audio(sdltx_pipeline* pipeline, const sdltx_array* samples, int64_t sample_rate,
                                          sdltx_latents** latents);

/* --- decoding --- */

typedef struct sdltx_video sdltx_video;

/* Pictures (frames, height, width, 3) in [-1, 1], sides multiples of 32 -> latents of pictures alone, of the first 8 k
 * + 1 frames. Of the request its tiling counts. request and callbacks: NULL for the defaults, and for none.
 */
SDLTX_API sdltx_status sdltx_encode_video(sdltx_pipeline* pipeline, const sdltx_array* pixels,
                                          const sdltx_request* request, const sdltx_callbacks* callbacks,
                                          sdltx_latents** latents);

/* Latents with more pixels or more frames, as the file of an upscaler makes them. More frames last as long as before,
 * at a higher rate; the sound stays. They are a start for sdltx_sample with `initial`.
 */
SDLTX_API sdltx_status sdltx_upsample(sdltx_pipeline* pipeline, const sdltx_latents* latents, const char* upscaler,
                                      sdltx_latents** result);

/* What of a clip is decoded. */
enum { SDLTX_PICTURES = 1, SDLTX_SOUND = 2 };

/* what: SDLTX_PICTURES, SDLTX_SOUND or both; both give a silent clip where latents or model have no sound. Of the
 * request its tiling counts. request and callbacks: NULL for the defaults, and for none.
 */
SDLTX_API sdltx_status sdltx_decode(sdltx_pipeline* pipeline, const sdltx_latents* latents,
                                    const sdltx_request* request, int32_t what, const sdltx_callbacks* callbacks,
                                    sdltx_video** video);
SDLTX_API void sdltx_video_free(sdltx_video* video);

/* RGB bytes (num_frames, height, width, 3). */
typedef struct sdltx_frames {
    const uint8_t* rgb; /* NULL: there are none here */
    int64_t num_frames, height, width;
    double frame_rate; /* frames per second */
} sdltx_frames;
SDLTX_API sdltx_status sdltx_video_frames(const sdltx_video* video, sdltx_frames* frames);

/* Samples (channels, num_samples) in [-1, 1]. It may be some milliseconds longer or shorter than the frames. */
typedef struct sdltx_sound {
    const float* samples; /* NULL: the clip is silent */
    int64_t channels, num_samples;
    int64_t sample_rate; /* Hz */
    int64_t clipped;     /* samples that were beyond [-1, 1] and are at its end now */
} sdltx_sound;
SDLTX_API sdltx_status sdltx_video_sound(const sdltx_video* video, sdltx_sound* sound);
/* As sdltx_latents_settings, of the latents that it was decoded from. Borrowed. */
SDLTX_API sdltx_status sdltx_video_settings(const sdltx_video* video, const char** json);

/* A clip of the request's prompt: encode, sample and decode in turn; what cannot be done is refused before anything is
 * computed. latents: NULL, or where the denoised clip goes; they are the caller's also when decoding fails or is
 * stopped, so that nothing is lost. callbacks: NULL for none.
 */
SDLTX_API sdltx_status sdltx_generate(sdltx_pipeline* pipeline, const sdltx_request* request, int32_t what,
                                      const sdltx_callbacks* callbacks, sdltx_latents** latents, sdltx_video** video);

/* Several clips, part of the model by part, so that each part is loaded once: all prompts are encoded, then all clips
 * denoised, then all decoded. A clip that fails leaves NULL in its place of `videos` and its status in `statuses`
 * (NULL: not told), and the others go on; the call then returns the first of these statuses. on_frames hears of one
 * clip after the other: a new one begins with first 0.
 */
SDLTX_API sdltx_status sdltx_generate_all(sdltx_pipeline* pipeline, const sdltx_request* const* requests, size_t count,
                                          int32_t what, const sdltx_callbacks* callbacks, sdltx_video** videos,
                                          sdltx_status* statuses);

/* How far the run of sdltx_generate or sdltx_generate_all is that goes on, or was the last: a fraction from 0 to 1, and
 * seconds left (NULL: not wanted; below 0: not known yet). Estimates. Any thread may ask at any time.
 */
SDLTX_API sdltx_status sdltx_whole_progress(sdltx_pipeline* pipeline, double* fraction, double* seconds_left);

#ifdef __cplusplus
}
#endif

#endif
