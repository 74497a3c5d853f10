/*
 * A clip from text through the C ABI of sdltx: frames as PPM files and the sound as WAV, in a folder that exists.
 *
 *     cc -std=c99 clip.c -o clip $(sdltx-cli embed --cflags --libs)
 *     ./clip FOLDER "a red circle moves left" MODEL_FILE...
 *
 * Ctrl-C stops it.
 */
#include <sdltx.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stop_wanted = 0;

static void want_stop(int number) {
    (void)number;
    stop_wanted = 1;
}

static int32_t show_progress(const char *phase, int64_t done, int64_t total, void *payload) {
    (void)payload;
    fprintf(stderr, "\r%-8s %3d %%", phase, total > 0 ? (int)(100 * done / total) : 0);
    return stop_wanted;
}

/* Opens FOLDER/NAME for writing, or tells why not. */
static FILE *create(const char *folder, const char *name) {
    char path[4096];
    FILE *file = NULL;
    if (snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path)) file = fopen(path, "wb");
    if (!file) fprintf(stderr, "\ncannot write %s/%s\n", folder, name);
    return file;
}

/* Each frame is written as soon as it is there. */
static int32_t write_frames(const uint8_t *rgb, int64_t first, int64_t count, int64_t height, int64_t width,
                            void *folder) {
    const size_t bytes = (size_t)height * (size_t)width * 3;
    for (int64_t i = 0; i < count; ++i) {
        char name[64];
        snprintf(name, sizeof(name), "frame_%04d.ppm", (int)(first + i + 1));
        FILE *file = create(folder, name);
        if (!file) return 1;
        int failed = fprintf(file, "P6\n%d %d\n255\n", (int)width, (int)height) < 0;
        failed |= fwrite(rgb + (size_t)i * bytes, 1, bytes, file) != bytes;
        failed |= fclose(file) != 0;
        if (failed) return 1;
    }
    return 0;
}

static void put(FILE *file, uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) fputc((int)(value >> (8 * i) & 255), file);
}

/* 16-bit PCM, little endian, channels interleaved. */
static int write_sound(const sdltx_sound *sound, const char *folder) {
    FILE *file = create(folder, "sound.wav");
    if (!file) return 1;
    const uint32_t frame = 2 * (uint32_t)sound->channels, rate = (uint32_t)sound->sample_rate;
    const uint32_t size = frame * (uint32_t)sound->num_samples;
    fwrite("RIFF", 1, 4, file), put(file, 36 + size, 4);
    fwrite("WAVEfmt ", 1, 8, file), put(file, 16, 4), put(file, 1, 2), put(file, (uint32_t)sound->channels, 2);
    put(file, rate, 4), put(file, rate * frame, 4), put(file, frame, 2), put(file, 16, 2);
    fwrite("data", 1, 4, file), put(file, size, 4);
    for (int64_t i = 0; i < sound->num_samples; ++i)
        for (int64_t c = 0; c < sound->channels; ++c) {
            const float value = 32767.0f * sound->samples[c * sound->num_samples + i];
            put(file, (uint32_t)(int32_t)(value < 0 ? value - 0.5f : value + 0.5f), 2);
        }
    const int failed = ferror(file);
    return fclose(file) != 0 || failed;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s FOLDER PROMPT MODEL_FILE...\n", argv[0]);
        return 2;
    }
    const char *folder = argv[1], *prompt = argv[2];
    signal(SIGINT, want_stop);

    sdltx_pipeline *pipeline = NULL;
    sdltx_video *video = NULL;
    sdltx_request *request = NULL;
    sdltx_callbacks callbacks = {SDLTX_CALLBACKS_VERSION, 0, show_progress, NULL, write_frames, argv[1]};
    sdltx_sound sound;

    sdltx_status status = sdltx_load((const char *const *)argv + 3, (size_t)argc - 3, NULL, &pipeline);
    if (status == SDLTX_OK) status = sdltx_request_new(&request);
    if (status == SDLTX_OK) status = sdltx_request_set_text(request, "prompt", prompt);
    if (status == SDLTX_OK) status = sdltx_request_set_int(request, "seed", 1);
    if (status == SDLTX_OK)
        status = sdltx_generate(pipeline, request, SDLTX_PICTURES | SDLTX_SOUND, &callbacks, NULL, &video);
    if (status == SDLTX_OK) status = sdltx_video_sound(video, &sound);
    fprintf(stderr, "\n");
    if (status != SDLTX_OK)
        fprintf(stderr, "error: %s\n", sdltx_last_error());
    else if (sound.samples && write_sound(&sound, folder) != 0)
        status = SDLTX_ERROR_BACKEND;
    sdltx_video_free(video);
    sdltx_request_free(request);
    sdltx_pipeline_free(pipeline);
    return status;
}
