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
 *   "as the model wants it" (SDLTX_DEFAULT_INT, SDLTX_DEFAULT_FLOAT, NULL). A program keeps working with later versions
 *   of the library: fields are added at the end, under a new version number, and what an old version lacks is default.
 * - Threads: different pipelines are independent. One pipeline is used by one thread at a time: a call while another
 *   thread's runs is SDLTX_ERROR_BUSY, and so is a call for the same pipeline from a callback, unless it comes between
 *   two units of work. Callbacks run on the calling thread, within the call, and must not throw, jump out or free the
 *   pipeline. Contexts, latents and videos do not change once they are made and may be read by any thread.
 * - Nothing of the process is changed: no signal handler, no locale, no environment; sdltx_explain_crashes is the one
 *   exception, for those who ask for it. A model file that is cut short while it is in use ends the process (SIGBUS).
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
#define SDLTX_ABI_VERSION 5
SDLTX_API uint32_t sdltx_abi_version(void);

/* Log lines of the whole process: level is 10 (debug), 20 (info), 30 (warning) or 40 (error). May be called on any
 * thread that uses the library. fn NULL: no log, as it is at first. The payload must live until the next sdltx_set_log.
 */
typedef void (*sdltx_log_fn)(int32_t level, const char* line, void* payload);
SDLTX_API void sdltx_set_log(sdltx_log_fn fn, void* payload);

/* For programs, not for libraries: sets handlers of SIGBUS (a model file that was cut short; the handler before it
 * comes after) and of uncaught C++ exceptions, which say in a line on stderr why the process ends. Once; later calls do
 * nothing.
 */
SDLTX_API void sdltx_explain_crashes(void);

/* Texts that a call has made, such as JSON. */
SDLTX_API void sdltx_string_free(char* text);

/* --- values --- */

#define SDLTX_DEFAULT_INT INT64_MIN
#define SDLTX_DEFAULT_FLOAT ((double)-1.0e300)

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
enum { SDLTX_OFFLOAD_NONE = 0, SDLTX_OFFLOAD_STAGE = 1, SDLTX_OFFLOAD_BLOCKS = 2 };

#define SDLTX_LOAD_OPTIONS_VERSION 1
typedef struct sdltx_load_options {
    uint32_t version;
    int32_t precision;  /* AUTO (default): as the weights are stored; F32: exact, slow, CPU only */
    const char* device; /* "cpu" (also NULL), "auto", "cuda0", "rpc:HOST:PORT"; several with commas share the blocks */
    /* Of the CPU; 0 (default): one per physical core that the process may use. They are OpenMP's, which by itself lets
     * them spin while they wait: on a machine with other work start the process with OMP_WAIT_POLICY=passive and
     * GOMP_SPINCOUNT=300 in its environment, as it reads them before main(). */
    int32_t threads;
    int32_t offload; /* how long weights stay: NONE (default) until the pipeline is freed, STAGE for one stage of a
                        run, BLOCKS for one block of a network */
    sdltx_progress_fn progress; /* of sdltx_load only; NULL: none */
    void* progress_payload;
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

#define SDLTX_CONVERT_OPTIONS_VERSION 1
typedef struct sdltx_convert_options {
    uint32_t version;
    int32_t threads;          /* 0 (default): one per physical core that the process may use */
    const char* type;         /* of the transformer, by llama.cpp's names; NULL: "q8_0"; "keep": as it is stored */
    const char* const* parts; /* of "transformer", "text_projection", "video_vae", "audio_vae"; NULL: the transformer in
                                 a .gguf, all in a .safetensors */
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

/* --- denoising --- */

typedef struct sdltx_latents sdltx_latents;

/* The clean estimate after step `done` of `steps`; it is borrowed for the time of the call. Other than 0 stops. */
typedef int32_t (*sdltx_step_fn)(int64_t done, int64_t steps, const sdltx_latents* estimate, void* payload);

/* What is not given is what the checkpoint was made for. The fields mean what they mean in Python
 * (sdltx.options.Options).
 */
/* A file of a LoRA, and how strongly it counts, usually 1. The model's weights stay as they are. */
typedef struct sdltx_lora {
    const char* path;
    double strength;
} sdltx_lora;

/* A picture that the clip shows at one of its frames: RGB bytes (height, width, 3) of any size, scaled to cover the
 * clip and cut on both sides. Models learned from frames of videos; Python compresses pictures as H.264 and back first
 * (libx264, crf 33 for LTX-2.0 and 2.3), which this library has no codec for.
 */
typedef struct sdltx_image {
    const uint8_t* rgb;
    int64_t height, width;
    int64_t frame;   /* 0: what the clip begins with; negative: from its end */
    double strength; /* 1: as it is, less: a start that is denoised further, 0: no effect */
} sdltx_image;

#define SDLTX_SAMPLE_OPTIONS_VERSION 5
typedef struct sdltx_sample_options {
    uint32_t version;
    int32_t audio;               /* 1: picture and sound, 0: the picture alone, -1 (default): as the model does */
    const char* preset;          /* "distilled", "dev", "dev-2.0", "hq" */
    const char* sampler;         /* "euler", "gradient_estimation", "euler_ancestral", "res_2s" */
    int64_t width, height;       /* pixels, multiples of 32 */
    int64_t num_frames;          /* 8 k + 1 */
    double frame_rate;           /* frames per second */
    int64_t num_inference_steps; /* of the checkpoint's schedule */
    const float* sigmas;         /* falling noise levels in [0, 1], in place of a schedule */
    size_t num_sigmas;           /* one more than there are steps */
    int64_t seed;                /* 0 to 2^63 - 1; drawn if it is not given */
    double guidance_scale, audio_guidance_scale;
    double stg_scale, audio_stg_scale;
    double modality_scale, audio_modality_scale;
    double guidance_rescale, audio_guidance_rescale;
    int64_t guidance_skip_steps, audio_guidance_skip_steps;
    const int64_t* stg_blocks;
    size_t num_stg_blocks;
    double guidance_interval[2]; /* lowest and highest noise level with guidance; both or neither */
    const char* guidance_method; /* "cfg", "cfg_star", "apg" */
    double apg_eta, apg_threshold;
    const sdltx_array* video_noise; /* start noise in the shape of the latents; NULL: drawn from the seed */
    const sdltx_array* audio_noise;
    sdltx_progress_fn progress;
    void* progress_payload;
    sdltx_step_fn on_step;
    void* on_step_payload;
    /* version 2 */
    const sdltx_image* images;
    size_t num_images;
    /* version 3 */
    const char* const* upscalers; /* files of latent upscalers: the clip is made in two stages, see sdltx_upsample; its
                                     size is that of the result */
    size_t num_upscalers;
    const sdltx_latents* initial; /* what is refined, with sigmas that begin below 1; NULL: nothing */
    /* version 4 */
    const sdltx_lora* loras;
    size_t num_loras;
    const sdltx_lora* second_loras; /* of the second stage of two; NULL: those of the first. A pointer with
                                       num_second_loras 0: none */
    size_t num_second_loras;
    /* version 5 */
    const char* recipe; /* one of sdltx_recipes; NULL: the one that fits the model and the rest of these. Of what
                           it needs, upscaler and distilled LoRA are also found in the folders of the model */
    const char* distilled_lora; /* the file, for recipes that want it, which know its strengths */
} sdltx_sample_options;
SDLTX_API sdltx_status sdltx_sample_options_init(sdltx_sample_options* options, uint32_t version);

/* Whether there is a model that could do this: what is wrong with options is told before one is loaded. NULL for the
 * defaults.
 */
SDLTX_API sdltx_status sdltx_check(const sdltx_sample_options* options);

/* What would run, as a JSON object with every option, also `passes` of the transformer per step, recipe, upscalers,
 * distilled_lora (null: none) and stages: a list of such objects, with their loras (path, strength). Computes nothing.
 * options: NULL for the defaults. A seed that is not given is drawn here; pass it on to repeat it.
 */
SDLTX_API sdltx_status sdltx_resolve(sdltx_pipeline* pipeline, const sdltx_sample_options* options, char** json);

/* What is possible with these options but probably not meant, as a JSON list of lines for people. */
SDLTX_API sdltx_status sdltx_doubts(sdltx_pipeline* pipeline, const sdltx_sample_options* options, char** json);

/* Denoises. negative: what the clip is guided away from; NULL: the model's negative prompt, if there is guidance.
 * options: NULL for the defaults.
 */
SDLTX_API sdltx_status sdltx_sample(sdltx_pipeline* pipeline, const sdltx_context* context,
                                    const sdltx_context* negative, const sdltx_sample_options* options,
                                    sdltx_latents** latents);
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

/* Frames first .. first + count - 1, RGB bytes (count, height, width, 3), borrowed for the time of the call. They come
 * in order. Other than 0 stops.
 */
typedef int32_t (*sdltx_frames_fn)(const uint8_t* rgb, int64_t first, int64_t count, int64_t height, int64_t width,
                                   void* payload);

#define SDLTX_DECODE_OPTIONS_VERSION 1
typedef struct sdltx_decode_options {
    uint32_t version;
    int32_t pictures;     /* 1 (default), or 0: the sound alone */
    int32_t sound;        /* 1 (default): the sound too, if latents and model have it, or 0 */
    int32_t reserved;     /* 0 */
    int64_t tile_size;    /* pixels of the longer side of a tile, 0: whole pictures */
    int64_t tile_overlap; /* pixels */
    int64_t tile_frames;  /* 0: all */
    int64_t tile_frame_overlap;
    sdltx_frames_fn on_frames; /* frames go here and are not kept, so any length fits; NULL: they are in the video */
    void* on_frames_payload;
    sdltx_progress_fn progress;
    void* progress_payload;
} sdltx_decode_options;
SDLTX_API sdltx_status sdltx_decode_options_init(sdltx_decode_options* options, uint32_t version);

/* Pictures (frames, height, width, 3) in [-1, 1], sides multiples of 32 -> latents of pictures alone, of the first 8 k
 * + 1 frames. options: the tiles and the progress; NULL for the defaults.
 */
SDLTX_API sdltx_status sdltx_encode_video(sdltx_pipeline* pipeline, const sdltx_array* pixels,
                                          const sdltx_decode_options* options, sdltx_latents** latents);

/* Latents with more pixels or more frames, as the file of an upscaler makes them. More frames last as long as before,
 * at a higher rate; the sound stays. They are a start for sdltx_sample with `initial`.
 */
SDLTX_API sdltx_status sdltx_upsample(sdltx_pipeline* pipeline, const sdltx_latents* latents, const char* upscaler,
                                      sdltx_latents** result);

/* The bytes of memory that the parts of a run take, weights not counted: a JSON object with encode, denoise, upscale
 * and decode; 0 for parts that are not there. Nothing is allocated and no weight is read. NULL for default options.
 */
SDLTX_API sdltx_status sdltx_estimate(sdltx_pipeline* pipeline, const sdltx_sample_options* options,
                                      const sdltx_decode_options* decode_options, char** json);

/* options: NULL for the defaults. */
SDLTX_API sdltx_status sdltx_decode(sdltx_pipeline* pipeline, const sdltx_latents* latents,
                                    const sdltx_decode_options* options, sdltx_video** video);
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

/* encode, sample and decode in turn; what cannot be decoded is refused before anything is computed. negative_prompt:
 * NULL for the model's. options and decode_options: NULL for the defaults. The progress of `options` hears of
 * encoding and denoising, and of decoding unless `decode_options` has its own. latents: NULL, or where the denoised
 * clip goes; they are the caller's also when decoding fails or is stopped, so that nothing is lost.
 */
SDLTX_API sdltx_status sdltx_generate(sdltx_pipeline* pipeline, const char* prompt, const char* negative_prompt,
                                      const sdltx_sample_options* options, const sdltx_decode_options* decode_options,
                                      sdltx_latents** latents, sdltx_video** video);

#ifdef __cplusplus
}
#endif

#endif
