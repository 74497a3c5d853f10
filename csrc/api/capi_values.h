// What the functions of the C ABI share: the status, the objects that callers hold, and the checks of what they pass.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/json.h"
#include "clip/pipeline.h"
#include "sdltx.h"

struct sdltx_pipeline {
    sdltx::Pipeline core;
};
struct sdltx_request {
    sdltx::Request values;
};
struct sdltx_context {
    sdltx::Context values;
};
struct sdltx_latents {
    sdltx::Latents values;
    std::string settings;  // JSON
};
struct sdltx_video {
    sdltx::Video values;
    std::string settings;  // of its latents
};

namespace sdltx {

[[noreturn]] inline void refuse(const std::string& where, const std::string& what) {
    throw Error(ErrorCode::invalid_request, "[" + where + "] " + what);
}

// --- status ---

inline thread_local std::string last_error;

inline sdltx_status failed(sdltx_status status, const char* text) noexcept {
    try {
        last_error = text;
    } catch (...) {
        last_error.clear();  // no memory for the line; the status tells
    }
    return status;
}

// Runs the body of a call; nothing that it throws gets out.
template <typename F>
sdltx_status guarded(F&& body) noexcept {
    const Inside inside;
    try {
        body();
        return SDLTX_OK;
    } catch (const Error& e) {
        return failed(static_cast<sdltx_status>(e.code()), e.what());
    } catch (const std::bad_alloc&) {
        return failed(SDLTX_ERROR_OUT_OF_MEMORY, "[memory] the host has none left; close other programs");
    } catch (const std::exception& e) {
        if (const auto known = device_error(e)) return failed(static_cast<sdltx_status>(known->code()), known->what());
        return failed(SDLTX_ERROR_INTERNAL, e.what());
    } catch (...) {
        return failed(SDLTX_ERROR_INTERNAL, "[internal] a callback threw what is no exception");
    }
}

// --- objects ---

// Objects of one type that exist, and whether they are the caller's to free.
template <typename T>
class Objects {
 public:
    static void add(const T* object, bool owned) {
        const std::lock_guard<std::mutex> lock(mutex());
        all()[object] = owned;
    }
    // Whether it was there and, if only what the caller owns is meant, is owned.
    static bool remove(const T* object, bool only_owned) {
        const std::lock_guard<std::mutex> lock(mutex());
        const auto found = all().find(object);
        if (found == all().end() || (only_owned && !found->second)) return false;
        all().erase(found);
        return true;
    }
    static bool contains(const T* object) {
        const std::lock_guard<std::mutex> lock(mutex());
        return all().count(object) != 0;
    }

 private:
    // Never destroyed: other threads may still run at the end of the process.
    static std::mutex& mutex() {
        static auto& m = *new std::mutex;
        return m;
    }
    static std::map<const T*, bool>& all() {
        static auto& objects = *new std::map<const T*, bool>;
        return objects;
    }
};

// An object that a callback sees and that is not the caller's to free.
template <typename T>
class Lent {
 public:
    explicit Lent(const T& object) : object_(&object) { Objects<T>::add(object_, false); }
    ~Lent() { Objects<T>::remove(object_, false); }
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;

 private:
    const T* object_;
};

template <typename T>
T& existing(T* object, const char* name) {
    if (!object) refuse(name, "is NULL");
    if (!Objects<std::remove_const_t<T>>::contains(object)) refuse(name, "does not exist (any more)");
    return *object;
}

template <typename T>
void give(T** out, std::unique_ptr<T> object) {
    Objects<T>::add(object.get(), true);
    *out = object.release();
}

template <typename T>
void free_object(T* object) noexcept {
    try {
        if (object && Objects<T>::remove(object, true)) delete object;
    } catch (...) {
        // what cannot be given back stays
    }
}

// --- arguments ---

template <typename T>
T& result(T* out, const char* name) {
    if (!out) refuse(name, "the pointer for the result is NULL");
    return *out;
}

// The place of a result, empty until there is one.
template <typename T>
T** emptied(T** out, const char* name) {
    result(out, name) = nullptr;
    return out;
}

inline const char* text(const char* value, const char* name) {
    if (!value) refuse(name, "is NULL");
    return value;
}

inline void check_version(uint32_t version, uint32_t known, const char* name) {
    if (version == 0 || version > known)
        refuse(name, "has version " + std::to_string(version) +
                         "; fill it with its _init function, of a version up to " + std::to_string(known) +
                         ", or update the library");
}

// The caller's options: all fields of the version that they were made for, defaults for those that came later. sizes:
// of the struct in versions 1, 2, ...
template <typename T, size_t N>
void take_options(T& to, const T* given, const char* name, const size_t (&sizes)[N]) {
    if (!given) return;
    check_version(given->version, N, name);
    std::memcpy(&to, given, sizes[given->version - 1]);
}

inline std::vector<std::string> strings(const char* const* values, size_t count, const char* name) {
    std::vector<std::string> out;
    for (size_t i = 0; i < count; ++i) out.emplace_back(text(values[i], name));
    return out;
}

inline std::vector<std::string> model_paths(const char* const* paths, size_t count) {
    if (!paths || count == 0) refuse("paths", "there are none; give the files of a model");
    return strings(paths, count, "paths");
}

// A copy; absent arrays are empty.
inline Array array_of(const sdltx_array* a, const char* name) {
    if (!a || !a->data) return {};
    if (a->dims < 1 || a->dims > 4) refuse(name, "has " + std::to_string(a->dims) + " dimensions; 1 to 4 are possible");
    Array out;
    int64_t count = 1;
    for (int i = 0; i < a->dims; ++i) {
        out.shape.push_back(a->shape[i]);
        if (a->shape[i] < 1 || __builtin_mul_overflow(count, a->shape[i], &count) || count > INT64_MAX / 4)
            refuse(name, "has the impossible shape " + spell_shape(out.shape));
    }
    out.data.assign(a->data, a->data + count);
    return out;
}

inline void require_dims(const Array& a, size_t dims, const char* name, const char* shape) {
    if (a.shape.size() != dims)
        refuse(name, std::string("must have the shape ") + shape + ", got " + spell_shape(a.shape));
}

inline sdltx_array borrowed(const Array& a) {
    sdltx_array out{};
    if (a.empty()) return out;
    out.data = a.data.data();
    out.dims = static_cast<int32_t>(a.shape.size());
    std::copy(a.shape.begin(), a.shape.end(), out.shape);
    return out;
}

inline char* copied(const std::string& s) {
    char* out = static_cast<char*>(std::malloc(s.size() + 1));
    if (!out) throw std::bad_alloc();
    std::memcpy(out, s.c_str(), s.size() + 1);
    return out;
}

// File names may hold bytes that are no UTF-8.
inline std::string spelled(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }
inline char* copied(const Json& j) { return copied(spelled(j)); }

}  // namespace sdltx
