// Any order of calls of the C ABI with any values: NULL, freed and foreign handles, versions that there are not, names
// of options, arrays of any shape. Nothing is computed; everything up to there is.
#include <array>
#include <cstring>
#include <vector>

#include "base/json.h"
#include "fuzz.h"
#include "sdltx.h"

namespace sdltx::fuzz {

namespace {

const std::vector<std::string>& names() {
    static const std::vector<std::string> all = [] {
        char* json = nullptr;
        expect(sdltx_options(&json) == SDLTX_OK, "no table of options");
        std::vector<std::string> rows;
        for (auto& row : Json::parse(json)) rows.push_back(row["name"]);
        sdltx_string_free(json);
        return rows;
    }();
    return all;
}

// The demo model.
sdltx_pipeline* pipeline() {
    static sdltx_pipeline* const loaded = [] {
        const char* path = SDLTX_DEMO;
        sdltx_pipeline* p = nullptr;
        expect(sdltx_load(&path, 1, nullptr, &p) == SDLTX_OK, sdltx_last_error());
        return p;
    }();
    return loaded;
}

constexpr size_t num_slots = 4;

// Objects by number; what was freed stays in its place.
class Caller {
 public:
    explicit Caller(Bytes in) : in_(in) {}
    ~Caller() {
        for (auto* r : requests_) sdltx_request_free(r);
        for (auto* l : latents_) sdltx_latents_free(l);
        for (auto* c : contexts_) sdltx_context_free(c);
    }

    void run() {
        for (int calls = 0; calls < 64 && !in_.empty(); ++calls) call();
    }

 private:
    size_t slot() { return in_.below(num_slots); }
    template <typename T>
    T* pick(const std::array<T*, num_slots>& of) {
        return in_.below(32) ? of[slot()] : nullptr;
    }
    std::string name() { return in_.below(16) ? names()[in_.byte() % names().size()] : in_.text(); }

    void told(sdltx_status status) {
        const char* line = sdltx_last_error();
        expect(line && !std::strchr(line, '\n'), "an error is not one line");
        expect(status != SDLTX_ERROR_INTERNAL, line);
    }
    void told(sdltx_status status, char* json) {
        told(status);
        expect((status == SDLTX_OK) == (json != nullptr), "a text without success, or the opposite");
        if (json) expect(Json::accept(json), "a text is not JSON");
        sdltx_string_free(json);
    }

    sdltx_array array() {
        sdltx_array a{};
        if (in_.below(16) == 0) return a;
        a.data = values_.data();
        a.dims = in_.below(8) ? 1 + in_.below(4) : static_cast<int32_t>(in_.number());
        // What is told of the values is true, or cannot be.
        int64_t count = 1;
        for (int i = 0; i < 4; ++i) {
            a.shape[i] = 1 + in_.below(4);
            count *= a.shape[i];
        }
        if (in_.below(8) == 0)
            a.shape[in_.below(4)] = in_.byte() & 1 ? -static_cast<int64_t>(in_.byte()) : INT64_MAX / 2;
        expect(count <= static_cast<int64_t>(values_.size()), "too few values");
        for (float& value : values_) value = 0.5f;
        if (in_.below(8) == 0) values_[in_.below(16)] = static_cast<float>(in_.real());
        return a;
    }
    // Beyond what there is only what is refused before it is believed.
    int64_t side() { return in_.below(8) ? 1 + in_.below(8) : -static_cast<int64_t>(in_.byte()); }

    // What takes long to plan is planned by the tests.
    static sdltx_request* small(sdltx_request* r) {
        if (sdltx_request_set_int(r, "width", 64) == SDLTX_OK && sdltx_request_set_int(r, "height", 64) == SDLTX_OK)
            sdltx_request_set_int(r, "num_frames", 9);
        return r;
    }

    void call();

    Bytes in_;
    std::array<sdltx_request*, num_slots> requests_{};
    std::array<sdltx_latents*, num_slots> latents_{};
    std::array<sdltx_context*, num_slots> contexts_{};
    std::array<float, 256> values_{};
    std::array<uint8_t, 8 * 8 * 8 * 3> pixels_{};
};

void Caller::call() {
    char* json = nullptr;
    switch (in_.below(32)) {
        case 0: {
            const size_t at = slot();
            sdltx_request_free(requests_[at]);
            told(sdltx_request_new(&requests_[at]));
            break;
        }
        case 1:
            sdltx_request_free(pick(requests_));  // it may be used, and freed, once more
            break;
        case 2:
            told(sdltx_request_set_text(pick(requests_), name().c_str(), in_.below(32) ? in_.text().c_str() : nullptr));
            break;
        case 3:
            told(sdltx_request_set_int(pick(requests_), name().c_str(), static_cast<int64_t>(in_.number())));
            break;
        case 4:
            told(sdltx_request_set_float(pick(requests_), name().c_str(), in_.real()));
            break;
        case 5: {
            std::vector<int64_t> values(in_.below(8));
            for (auto& v : values) v = static_cast<int64_t>(in_.number());
            told(sdltx_request_set_ints(pick(requests_), name().c_str(), values.data(), values.size()));
            break;
        }
        case 6: {
            std::vector<double> values(in_.below(8));
            for (auto& v : values) v = in_.real();
            told(sdltx_request_set_floats(pick(requests_), name().c_str(), values.data(), values.size()));
            break;
        }
        case 7:
            told(sdltx_request_add_text(pick(requests_), name().c_str(), in_.text().c_str()));
            break;
        case 8:
            told(sdltx_request_add_lora(pick(requests_), name().c_str(), in_.text().c_str(), in_.real()));
            break;
        case 9:
            told(sdltx_request_unset(pick(requests_), name().c_str()));
            break;
        case 10: {
            const int64_t h = side(), w = side();
            told(sdltx_request_add_image(pick(requests_), in_.below(32) ? pixels_.data() : nullptr, h, w,
                                         static_cast<int64_t>(in_.number()), in_.real()));
            break;
        }
        case 11: {
            const sdltx_array a = array();
            told(sdltx_request_set_sound(pick(requests_), in_.below(32) ? &a : nullptr,
                                         static_cast<int64_t>(in_.number())));
            break;
        }
        case 12: {
            const sdltx_array a = array();
            const int64_t n = side(), h = side(), w = side();
            told(sdltx_request_set_film(pick(requests_), in_.below(32) ? pixels_.data() : nullptr, n, h, w, in_.real(),
                                        in_.below(2) ? &a : nullptr, static_cast<int64_t>(in_.number())));
            break;
        }
        case 13: {
            const int64_t n = side(), h = side(), w = side();
            told(sdltx_request_set_mask(pick(requests_), in_.below(32) ? pixels_.data() : nullptr, n, h, w));
            break;
        }
        case 14: {
            const int64_t n = side(), h = side(), w = side();
            told(sdltx_request_add_reference(pick(requests_), in_.below(32) ? pixels_.data() : nullptr, n, h, w,
                                             in_.real(), in_.below(2) ? pixels_.data() : nullptr));
            break;
        }
        case 15: {
            const sdltx_array a = array();
            told(sdltx_request_set_noise(pick(requests_), &a, in_.below(2) ? &a : nullptr));
            break;
        }
        case 16:
            told(sdltx_request_set_initial(pick(requests_), pick(latents_)));
            break;
        case 17: {
            const std::string text = in_.text(200);
            told(sdltx_request_read(pick(requests_), in_.below(32) ? text.c_str() : nullptr));
            break;
        }
        case 18:
            told(sdltx_request_json(pick(requests_), &json), json);
            break;
        case 19:
            told(sdltx_check(pick(requests_)));
            break;
        case 20: {
            const size_t at = slot();
            sdltx_latents_free(latents_[at]);
            const sdltx_array video = array(), audio = array();
            told(sdltx_latents_new(in_.below(4) ? &video : nullptr, in_.below(4) ? &audio : nullptr, in_.real(),
                                   &latents_[at]));
            break;
        }
        case 21:
            sdltx_latents_free(pick(latents_));
            break;
        case 22: {
            sdltx_array video{}, audio{};
            double rate = 0;
            told(sdltx_latents_get(pick(latents_), &video, &audio, &rate));
            break;
        }
        case 23: {
            const size_t at = slot();
            sdltx_context_free(contexts_[at]);
            const sdltx_array video = array(), audio = array();
            told(sdltx_context_new(in_.below(16) ? &video : nullptr, in_.below(4) ? &audio : nullptr, &contexts_[at]));
            break;
        }
        case 24: {
            alignas(8) char room[256];
            const auto version = static_cast<uint32_t>(in_.below(4) ? in_.below(4) : in_.number());
            if (in_.byte() & 1)
                told(sdltx_load_options_init(reinterpret_cast<sdltx_load_options*>(room), version));
            else
                told(sdltx_convert_options_init(reinterpret_cast<sdltx_convert_options*>(room), version));
            break;
        }
        case 25: {
            sdltx_array video{}, audio{};
            told(sdltx_context_get(pick(contexts_), &video, &audio));
            break;
        }
        case 26:
            told(sdltx_describe(in_.below(32) ? pipeline() : nullptr, &json), json);
            break;
        case 27: {
            std::vector<int32_t> ids(in_.below(8));
            size_t count = 0;
            told(sdltx_tokenize(pipeline(), in_.text().c_str(), ids.data(), ids.size(), &count));
            break;
        }
        case 28:
            // Plans of all networks: some in a hundred of these calls.
            if (in_.byte() == 0) told(sdltx_estimate(pipeline(), small(pick(requests_)), &json), json);
            break;
        case 29:
            told(sdltx_doubts(pipeline(), pick(requests_), &json), json);
            break;
        default:
            told(sdltx_resolve(pipeline(), pick(requests_), &json), json);
            break;
    }
}

void run(const uint8_t* data, size_t size) { Caller(Bytes(data, size)).run(); }

const Register calls("calls", run);

}  // namespace

}  // namespace sdltx::fuzz
