// How the extension calls the core: without the GIL, and with exceptions of callbacks and signals coming out unchanged.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>

#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/platform.h"
#include "bindings_gil.h"
#include "clip/pipeline.h"

namespace sdltx {

namespace py = pybind11;

// What a signal handler raised while a log record was handled (KeyboardInterrupt, SystemExit): there it has nowhere to
// go, so it ends the run at the next occasion. Used with the GIL held.
inline std::unique_ptr<py::error_already_set> deferred;

// A Python exception raised while the core runs (by a callback or a signal) ends the run and comes out unchanged.
class Guard {
 public:
    explicit Guard(std::optional<py::function> progress) : progress_(std::move(progress)) { install_last_words(); }

    Progress progress() {
        return [this](const ProgressEvent& e) {
            const WithGil gil;
            return call([&] {
                if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                if (progress_) (*progress_)(e.phase, e.done, e.total);
            });
        };
    }
    std::function<bool()> poll() {
        return [this] {
            const WithGil gil;
            return call([] {
                if (PyErr_CheckSignals() != 0) throw py::error_already_set();
            });
        };
    }
    template <typename F>
    bool call(F&& f) {
        if (deferred) {
            raised_ = std::move(deferred);
            return false;
        }
        try {
            f();
            return true;
        } catch (py::error_already_set& e) {
            raised_ = std::make_unique<py::error_already_set>(std::move(e));
            return false;
        }
    }
    // Runs `f` without the GIL.
    template <typename F>
    auto run(Pipeline* pipeline, F&& f) {
        try {
            if constexpr (std::is_void_v<std::invoke_result_t<F>>) {
                without_gil(pipeline, f);
                raise_pending();
            } else {
                auto result = without_gil(pipeline, f);
                raise_pending();
                return result;
            }
        } catch (const Error& e) {
            if (raised_) throw std::move(*raised_);
            throw;
        }
    }

 private:
    // Signals are looked for while a graph is computed, where they can be seen: on the main thread; elsewhere waiting
    // for the GIL would cost all cores time for nothing.
    template <typename F>
    auto without_gil(Pipeline* pipeline, F&& f) {
        const py::object main = py::module_::import("threading").attr("main_thread")().attr("ident");
        const bool on_main = main.cast<unsigned long>() == PyThread_get_thread_ident();
        const WithoutGil release;
        const Inside inside;
        if (!pipeline) return f();
        const Pipeline::Turn turn(*pipeline);
        // A callback may use the pipeline again, so what was polled before is polled afterwards.
        struct Polled {
            Backend& backend;
            Backend::Poll before;
            ~Polled() { backend.exchange_poll(std::move(before)); }
        } polled{pipeline->backend(), pipeline->backend().exchange_poll(on_main ? poll() : Backend::Poll{})};
        return f();
    }

    // What was raised when the run was over already, or where it did not end it.
    void raise_pending() {
        if (raised_) throw std::move(*raised_);
        if (deferred) throw std::move(*std::exchange(deferred, nullptr));
    }

    std::optional<py::function> progress_;
    std::unique_ptr<py::error_already_set> raised_;
};

}  // namespace sdltx
