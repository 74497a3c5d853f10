#include "worker.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>

#include "backend.h"
#include "base/platform.h"
#include "ggml-rpc.h"
#include "lost_worker.h"
#include "worker_socket.h"

void sdltx_rpc_failed(const char* file, int line, const char* format, ...);

namespace sdltx {

namespace {

// ggml's client ends the process when the other side does not speak its protocol, so it is greeted here first: command
// 14, a length, 24 bytes of capabilities; the answer is a length, the version, and capabilities again.
void greet(const std::string& endpoint, const std::string& host, const std::string& port) {
    const auto fail = [&](ErrorCode code, const std::string& why) { throw Error(code, "[device] " + why); };
    Socket s;
    connect_to(s, host, port);
    if (s.fd < 0)
        fail(ErrorCode::backend, "nobody answers at " + endpoint + "; start a worker there: sdltx-cli worker --host " +
                                     host + " --port " + port);
    if (const std::string secret = worker_secret(); !secret.empty()) {
        const Handshake came = prove_to_worker(s.fd, secret);
        if (came == Handshake::not_asked)
            fail(ErrorCode::busy, "the worker at " + endpoint +
                                      " does not ask for the secret: it serves somebody else, or was started without "
                                      "SDLTX_WORKER_SECRET");
        if (came != Handshake::done)
            fail(ErrorCode::backend, came == Handshake::refused
                                         ? "the worker at " + endpoint + " has another SDLTX_WORKER_SECRET"
                                         : "what listens at " + endpoint + " is not a worker of sdltx with a secret");
    }
    constexpr size_t capabilities = 24;
    const uint64_t length = capabilities;
    std::array<uint8_t, 1 + sizeof(length) + capabilities> hello{14};
    std::memcpy(&hello[1], &length, sizeof(length));
    if (::send(s.fd, hello.data(), hello.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(hello.size()))
        fail(ErrorCode::backend, endpoint + " does not listen");
    std::array<uint8_t, sizeof(length) + 4 + capabilities> answer{};
    for (size_t got = 0; got < answer.size();) {
        if (!wait_for(s.fd, POLLIN, answer_time()))
            fail(ErrorCode::busy, "the worker at " + endpoint + " does not answer; it serves one client at a time");
        const ssize_t n = ::recv(s.fd, &answer[got], answer.size() - got, 0);
        if (n <= 0) fail(ErrorCode::backend, "what listens at " + endpoint + " is not a worker of sdltx");
        got += static_cast<size_t>(n);
        if (got >= 5 && std::memcmp(answer.data(), secret_wanted, 5) == 0)
            fail(ErrorCode::backend, "the worker at " + endpoint + " wants a secret; set SDLTX_WORKER_SECRET to it");
    }
    uint64_t said = 0;
    std::memcpy(&said, answer.data(), sizeof(said));
    const uint8_t* version = &answer[sizeof(said)];
    if (said != answer.size() - sizeof(said) || version[0] != RPC_PROTO_MAJOR_VERSION ||
        version[1] != RPC_PROTO_MINOR_VERSION || version[2] != RPC_PROTO_PATCH_VERSION)
        fail(ErrorCode::backend, "what listens at " + endpoint + " is not a worker of this version of sdltx");
}

// Never destroyed: threads may use them until the process is gone.
std::mutex& reserved_mutex = *new std::mutex;
std::set<std::string>& reserved = *new std::set<std::string>;
thread_local int losses_are_fine = 0;

}  // namespace

LossIsFine::LossIsFine() { ++losses_are_fine; }
LossIsFine::~LossIsFine() { --losses_are_fine; }

}  // namespace sdltx

void sdltx_rpc_failed(const char*, int, const char* format, ...) {
    using namespace sdltx;
    if (losses_are_fine) return;
    char text[256];
    va_list values;
    va_start(values, format);
    std::vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    if (serves_connections())
        throw Error(ErrorCode::backend, std::string("[worker] the client asked for what cannot be: ") + text);
    std::string workers;
    const std::lock_guard<std::mutex> lock(reserved_mutex);
    for (const std::string& endpoint : reserved) workers += (workers.empty() ? "" : " or ") + endpoint;
    throw Error(ErrorCode::backend, "[device] the worker at " + workers + " is gone, or has run out of memory (" +
                                        text + "); start it again and load the model again");
}

namespace sdltx {

void serve(const std::string& host, int port, const std::string& device, int threads, double max_memory) {
    in_addr address{};
    if (inet_pton(AF_INET, host.c_str(), &address) != 1)
        throw Error(ErrorCode::invalid_request,
                    "[worker] host '" + host + "' is not an IPv4 address, such as 127.0.0.1");
    if (port < 1 || port > 65535)
        throw Error(ErrorCode::invalid_request, "[worker] port " + std::to_string(port) + " is not within 1 to 65535");
    const Backend backend(device, false, threads);
    std::vector<ggml_backend_dev_t> devices;
    for (ggml_backend_t b : backend.backends()) devices.push_back(ggml_backend_get_device(b));
    devices.resize(backend.num_devices());
    const std::string endpoint = host + ":" + std::to_string(port);
    // What a client asks for beyond that is refused, and the machine lives.
    const double bytes = max_memory > 0 ? max_memory * (1 << 30) : 0.9 * static_cast<double>(available_memory());
    if (bytes < 0x1p62) {
        const auto most = static_cast<rlim_t>(bytes) + own_memory();
        const rlimit limit{most, most};
        ::setrlimit(RLIMIT_DATA, &limit);
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve_connections();
    ggml_backend_rpc_start_server(endpoint.c_str(), nullptr, static_cast<size_t>(backend.threads()), devices.size(),
                                  devices.data());
    throw Error(ErrorCode::backend, "[worker] cannot serve at " + endpoint + "; is the port in use?");
}

std::shared_ptr<void> reserve_worker(const std::string& endpoint) {
    const size_t colon = endpoint.find(':');
    const std::string host = endpoint.substr(0, colon),
                      port = colon == std::string::npos ? "" : endpoint.substr(colon + 1);
    if (host.empty() || port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos)
        throw Error(ErrorCode::invalid_request, "[device] 'rpc:" + endpoint + "' must be rpc:HOST:PORT");
    {
        const std::lock_guard<std::mutex> lock(reserved_mutex);
        if (!reserved.insert(endpoint).second)
            throw Error(ErrorCode::busy, "[device] another pipeline of this process uses the worker at " + endpoint +
                                             "; close it first");
    }
    const std::shared_ptr<void> reservation(nullptr, [endpoint](void*) {
        const std::lock_guard<std::mutex> lock(reserved_mutex);
        reserved.erase(endpoint);
    });
    greet(endpoint, host, port);
    return reservation;
}

}  // namespace sdltx
