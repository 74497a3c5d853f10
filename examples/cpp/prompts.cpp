// Several clips of one loaded model through the C ABI of sdltx, with handles that free themselves: a prompt a line on
// standard input, a raw RGB file for each in a folder that exists.
//
//     c++ -std=c++17 prompts.cpp -o prompts $(sdltx-cli embed --cflags --libs)
//     ./prompts FOLDER MODEL_FILE... < prompts.txt
#include <sdltx.h>

#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Free {
    void operator()(sdltx_pipeline* p) const { sdltx_pipeline_free(p); }
    void operator()(sdltx_request* r) const { sdltx_request_free(r); }
    void operator()(sdltx_video* v) const { sdltx_video_free(v); }
};
using Pipeline = std::unique_ptr<sdltx_pipeline, Free>;
using Request = std::unique_ptr<sdltx_request, Free>;
using Video = std::unique_ptr<sdltx_video, Free>;

void check(sdltx_status status) {
    if (status != SDLTX_OK) throw std::runtime_error(sdltx_last_error());
}

Pipeline load(const char* const* paths, size_t count) {
    sdltx_load_options options;
    check(sdltx_load_options_init(&options, SDLTX_LOAD_OPTIONS_VERSION));
    options.device = "auto";
    sdltx_pipeline* out = nullptr;
    check(sdltx_load(paths, count, &options, &out));
    return Pipeline(out);
}

Request request(const std::string& prompt) {
    sdltx_request* out = nullptr;
    check(sdltx_request_new(&out));
    Request request(out);
    check(sdltx_request_set_text(out, "prompt", prompt.c_str()));
    check(sdltx_request_set_int(out, "seed", 1));
    return request;
}

// All prompts are encoded, then all clips denoised, then all decoded, so each part of the model is loaded once.
std::vector<Video> generate(sdltx_pipeline* pipeline, const std::vector<Request>& requests) {
    std::vector<const sdltx_request*> lent;
    for (const Request& one : requests) lent.push_back(one.get());
    std::vector<sdltx_video*> out(requests.size());
    const sdltx_status status = sdltx_generate_all(pipeline, lent.data(), lent.size(), SDLTX_PICTURES, nullptr,
                                                   out.data(), nullptr);
    std::vector<Video> videos(out.begin(), out.end());
    check(status);
    return videos;
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 3) {
        std::cerr << "usage: " << argv[0] << " FOLDER MODEL_FILE... < PROMPTS\n";
        return 2;
    }
    const Pipeline pipeline = load(argv + 2, static_cast<size_t>(argc) - 2);
    std::string prompt;
    std::vector<Request> requests;
    while (std::getline(std::cin, prompt)) requests.push_back(request(prompt));
    int number = 0;
    for (const Video& video : generate(pipeline.get(), requests)) {
        sdltx_frames frames;
        check(sdltx_video_frames(video.get(), &frames));
        const std::string path = std::string(argv[1]) + "/clip_" + std::to_string(++number) + ".rgb";
        std::ofstream file(path, std::ios::binary);
        file.write(reinterpret_cast<const char*>(frames.rgb), frames.num_frames * frames.height * frames.width * 3);
        if (!file.flush()) throw std::runtime_error("cannot write " + path);
        std::cout << path << ": " << frames.num_frames << " frames of " << frames.width << "x" << frames.height << "\n";
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
}
