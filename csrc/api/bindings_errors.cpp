// The exceptions of the core as Python's.
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "bindings.h"

namespace py = pybind11;

namespace sdltx {

namespace {

py::object error_classes[8];

// A message may quote bytes of a damaged file that are not UTF-8.
py::object made(ErrorCode code, const char* text) { return error_classes[static_cast<int>(code)](decoded(text)); }

}  // namespace

py::object exception_of(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (py::error_already_set& e) {
        return e.value();
    } catch (const Error& e) {
        return made(e.code(), e.what());
    } catch (const std::bad_alloc&) {
        return made(ErrorCode::out_of_memory,
                    "[memory] the process ran out of memory; ask for a smaller picture or fewer frames");
    } catch (const std::exception& e) {
        if (const auto known = device_error(e)) return made(known->code(), known->what());
        return py::reinterpret_borrow<py::object>(PyExc_RuntimeError)(decoded(e.what()));
    }
}

void bind_errors(py::module_& m) {
    auto define = [&](const char* name, const py::tuple& bases) {
        py::object cls = py::reinterpret_steal<py::object>(
            PyErr_NewException((std::string("sdltx.") + name).c_str(), bases.ptr(), nullptr));
        m.attr(name) = cls;
        return cls;
    };
    py::object base = define("SdltxError", py::make_tuple(py::handle(PyExc_Exception)));
    error_classes[0] = base;
    error_classes[static_cast<int>(ErrorCode::model_file)] = define("ModelFileError", py::make_tuple(base));
    error_classes[static_cast<int>(ErrorCode::model_mismatch)] = define("ModelMismatchError", py::make_tuple(base));
    error_classes[static_cast<int>(ErrorCode::out_of_memory)] =
        define("OutOfMemoryError", py::make_tuple(base, py::handle(PyExc_MemoryError)));
    error_classes[static_cast<int>(ErrorCode::invalid_request)] =
        define("InvalidRequestError", py::make_tuple(base, py::handle(PyExc_ValueError)));
    error_classes[static_cast<int>(ErrorCode::cancelled)] = define("Cancelled", py::make_tuple(base));
    error_classes[static_cast<int>(ErrorCode::backend)] = define("BackendError", py::make_tuple(base));
    error_classes[static_cast<int>(ErrorCode::busy)] = define("BusyError", py::make_tuple(base));
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const Error&) {
            const py::object error = exception_of(p);
            PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
        } catch (const std::bad_alloc&) {
            const py::object error = exception_of(p);
            PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
        } catch (const std::system_error&) {
            const py::object error = exception_of(p);
            PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
        }
    });
}

}  // namespace sdltx
