// Requests of the C ABI: options by their names, and what is no number or text.
#include <cmath>
#include <optional>

#include "capi_values.h"
#include "model/presets.h"

namespace sdltx {

namespace {

// Calls use(option, field) for the option of this name.
template <typename Use>
void with_option(const char* given, Use&& use) {
    const std::string name = text(given, "name");
    option_named(name);  // throws
    for_each_option([&](const Option& option, auto field) {
        if (name == option.name) use(option, field);
    });
}

// What JSON cannot tell.
void refuse_infinite(const char* name, double value) {
    if (!std::isfinite(value)) refuse("request", std::string(name) + " must be a finite number");
}

void refuse_infinite(const char* name, const std::vector<double>& values) {
    for (double value : values) refuse_infinite(name, value);
}

[[noreturn]] void refuse_kind(const Option& option) {
    refuse("request", std::string(option.name) + " is of the kind '" + name_of(option.kind) +
                          "'; set it with the function for that");
}

// Whole numbers are truth values and real ones too.
template <typename T>
void assign(const Option&, std::optional<T>& to, T value) {
    to = std::move(value);
}
void assign(const Option& option, std::optional<bool>& to, int64_t value) {
    if (value != 0 && value != 1) refuse("request", std::string(option.name) + " must be 0 or 1");
    to = value == 1;
}
void assign(const Option&, std::optional<double>& to, int64_t value) { to = static_cast<double>(value); }
template <typename Field, typename T>
void assign(const Option& option, std::optional<Field>&, T) {
    refuse_kind(option);
}

// Sets what has the type of a value; other options refuse it.
template <typename T>
void set(sdltx_request* request, const char* name, T value) {
    ClipOptions& o = existing(request, "request").values.options;
    with_option(name, [&](const Option& option, auto field) {
        if constexpr (std::is_same_v<T, double> || std::is_same_v<T, std::vector<double>>)
            refuse_infinite(option.name, value);
        assign(option, o.*field, std::move(value));
    });
}

// One more of a list.
template <typename T>
void add(sdltx_request* request, const char* name, T value) {
    ClipOptions& o = existing(request, "request").values.options;
    with_option(name, [&](const Option& option, auto field) {
        using Field = typename std::decay_t<decltype(o.*field)>::value_type;
        if constexpr (std::is_same_v<Field, std::vector<T>>) {
            if (!(o.*field)) (o.*field).emplace();
            (o.*field)->push_back(std::move(value));
        } else {
            refuse_kind(option);
        }
    });
}

template <typename T>
void set_list(sdltx_request* request, const char* name, const T* values, size_t count) {
    existing(request, "request");  // before what is told of the values is believed
    with_option(name, [](const Option&, auto) {});
    constexpr size_t longest = size_t{1} << 20;
    if (count && !values) refuse("values", "is NULL");
    if (count > longest) refuse("values", "has " + std::to_string(count) + " values");
    set(request, name, std::vector<T>{values, values + count});
}

int64_t checked_bytes(int64_t of_pixel, int64_t num_frames, int64_t height, int64_t width, const char* name) {
    int64_t bytes = of_pixel;
    if (num_frames < 1 || height < 1 || width < 1 || __builtin_mul_overflow(bytes, num_frames, &bytes) ||
        __builtin_mul_overflow(bytes, height, &bytes) || __builtin_mul_overflow(bytes, width, &bytes))
        refuse(name, "it has no pixels");
    return bytes;
}

Frames frames_of(const uint8_t* rgb, int64_t num_frames, int64_t height, int64_t width, const char* name) {
    if (!rgb) refuse(name, "it has no pixels");
    return {num_frames, height, width, {rgb, rgb + checked_bytes(3, num_frames, height, width, name)}};
}

Waveform sound_of(const sdltx_array* samples, int64_t rate) {
    Waveform sound{array_of(samples, "samples"), static_cast<int>(rate)};
    if (sound.samples.empty()) return {};
    require_dims(sound.samples, 2, "samples", "(channels, samples)");
    constexpr int64_t fastest = 1000000;
    if (rate < 1 || rate > fastest) refuse("sample rate", "must be 1 to 1000000 Hz");
    for (float x : sound.samples.data)
        if (!std::isfinite(x)) refuse("samples", "hold values that are not finite");
    return sound;
}

}  // namespace

}  // namespace sdltx

using namespace sdltx;

sdltx_status sdltx_options(char** json) {
    return guarded([&] {
        emptied(json, "json");
        Json rows = Json::array();
        for (const Option& o : all_options())
            rows.push_back({{"name", o.name},
                            {"kind", name_of(o.kind)},
                            {"group", o.group},
                            {"unit", o.unit},
                            {"range", o.has_range() ? Json{o.least, o.most} : Json()},
                            {"choices", o.choices()},
                            {"since", o.since},
                            {"help", o.help},
                            {"docs", o.docs}});
        *json = copied(rows);
    });
}

sdltx_status sdltx_request_new(sdltx_request** request) {
    return guarded([&] { give(emptied(request, "request"), std::make_unique<sdltx_request>()); });
}

void sdltx_request_free(sdltx_request* request) { free_object(request); }

sdltx_status sdltx_request_set_text(sdltx_request* request, const char* name, const char* value) {
    return guarded([&] { set(request, name, std::string(text(value, "value"))); });
}

sdltx_status sdltx_request_set_int(sdltx_request* request, const char* name, int64_t value) {
    return guarded([&] { set(request, name, value); });
}

sdltx_status sdltx_request_set_float(sdltx_request* request, const char* name, double value) {
    return guarded([&] { set(request, name, value); });
}

sdltx_status sdltx_request_set_ints(sdltx_request* request, const char* name, const int64_t* values, size_t count) {
    return guarded([&] { set_list(request, name, values, count); });
}

sdltx_status sdltx_request_set_floats(sdltx_request* request, const char* name, const double* values, size_t count) {
    return guarded([&] { set_list(request, name, values, count); });
}

sdltx_status sdltx_request_add_text(sdltx_request* request, const char* name, const char* value) {
    return guarded([&] { add(request, name, std::string(text(value, "value"))); });
}

sdltx_status sdltx_request_add_lora(sdltx_request* request, const char* name, const char* path, double strength) {
    return guarded([&] {
        refuse_infinite("strength", strength);
        add(request, name, LoraFile{text(path, "path"), static_cast<float>(strength)});
    });
}

sdltx_status sdltx_request_unset(sdltx_request* request, const char* name) {
    return guarded([&] {
        ClipOptions& o = existing(request, "request").values.options;
        with_option(name, [&](const Option&, auto field) { (o.*field).reset(); });
    });
}

sdltx_status sdltx_request_add_image(sdltx_request* request, const uint8_t* rgb, int64_t height, int64_t width,
                                     int64_t frame, double strength) {
    return guarded([&] {
        Request& r = existing(request, "request").values;
        refuse_infinite("strength", strength);
        Frames image = frames_of(rgb, 1, height, width, "image");
        Condition& c = r.images.emplace_back();
        c.image = std::move(image);
        c.frame = frame;
        c.strength = static_cast<float>(strength);
    });
}

sdltx_status sdltx_request_set_sound(sdltx_request* request, const sdltx_array* samples, int64_t sample_rate) {
    return guarded([&] { existing(request, "request").values.sound = sound_of(samples, sample_rate); });
}

sdltx_status sdltx_request_set_film(sdltx_request* request, const uint8_t* rgb, int64_t num_frames, int64_t height,
                                    int64_t width, double frame_rate, const sdltx_array* samples, int64_t sample_rate) {
    return guarded([&] {
        Request& r = existing(request, "request").values;
        Film film;
        if (rgb) {
            film.frames = frames_of(rgb, num_frames, height, width, "film");
            refuse_infinite("frame_rate", frame_rate);
            film.frame_rate = frame_rate;
            film.sound = sound_of(samples, sample_rate);
        }
        r.film = std::move(film);
    });
}

sdltx_status sdltx_request_set_mask(sdltx_request* request, const uint8_t* mask, int64_t num_frames, int64_t height,
                                    int64_t width) {
    return guarded([&] {
        Request& r = existing(request, "request").values;
        Frames given;
        if (mask) {
            given = {num_frames, height, width, {}};
            const int64_t bytes = checked_bytes(1, num_frames, height, width, "mask");
            given.data.assign(mask, mask + bytes);
        }
        r.mask = std::move(given);
    });
}

sdltx_status sdltx_request_add_reference(sdltx_request* request, const uint8_t* rgb, int64_t num_frames, int64_t height,
                                         int64_t width, double strength, const uint8_t* attention) {
    return guarded([&] {
        Request& r = existing(request, "request").values;
        refuse_infinite("strength", strength);
        Request::Reference reference;
        reference.film.frames = frames_of(rgb, num_frames, height, width, "reference");
        reference.still = num_frames == 1;
        reference.strength = static_cast<float>(strength);
        if (attention)
            reference.attention = {num_frames, height, width, {attention, attention + num_frames * height * width}};
        r.references.push_back(std::move(reference));
    });
}

sdltx_status sdltx_request_set_noise(sdltx_request* request, const sdltx_array* video, const sdltx_array* audio) {
    return guarded([&] {
        existing(request, "request").values.noise = {array_of(video, "video noise"), array_of(audio, "audio noise")};
    });
}

sdltx_status sdltx_request_set_initial(sdltx_request* request, const sdltx_latents* latents) {
    return guarded([&] {
        Request& r = existing(request, "request").values;
        r.initial = latents ? existing(latents, "initial").values : Latents{};
    });
}

sdltx_status sdltx_request_read(sdltx_request* request, const char* json) {
    return guarded([&] {
        Request &r = existing(request, "request").values, changed = r;
        read_json(parse_json_text(text(json, "json"), ErrorCode::invalid_request, "request"), changed);
        r = std::move(changed);  // all of it or nothing
    });
}

sdltx_status sdltx_request_json(const sdltx_request* request, char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = copied(to_json(existing(request, "request").values));
    });
}

sdltx_status sdltx_check(const sdltx_request* request) {
    return guarded([&] { check(request ? existing(request, "request").values.options : ClipOptions{}); });
}
