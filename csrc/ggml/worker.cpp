#include "worker.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "backend.h"
#include "ggml-rpc.h"
#include "lost_worker.h"
#include "rpc_failures.h"

namespace sdltx {

namespace {

// How long a worker may take to answer the first time: five seconds, or what SDLTX_WORKER_TIMEOUT says.
std::chrono::milliseconds answer_time() {
    const char* seconds = std::getenv("SDLTX_WORKER_TIMEOUT");
    char* end = nullptr;
    const double wanted = seconds ? std::strtod(seconds, &end) : 0;
    return std::chrono::milliseconds(wanted > 0 && wanted <= 3600 ? static_cast<int64_t>(wanted * 1000) : 5000);
}

struct Socket {
    int fd = -1;
    ~Socket() {
        if (fd >= 0) ::close(fd);
    }
};

// Signals, after which poll() does not go on by itself, make the wait no longer.
bool wait_for(int fd, short events) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + answer_time();
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
        pollfd p{fd, events, 0};
        const int ready = ::poll(&p, 1, static_cast<int>(std::max<int64_t>(left, 0)));
        if (ready >= 0 || errno != EINTR) return ready == 1 && (p.revents & events);
    }
}

// A connection within the time limit, or none.
void connect_to(Socket& s, const std::string& host, const std::string& port) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return;
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
    s.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s.fd < 0) return;
    int error = 0;
    socklen_t size = sizeof(error);
    if (::connect(s.fd, found->ai_addr, found->ai_addrlen) == 0) return;
    if (errno == EINPROGRESS && wait_for(s.fd, POLLOUT) &&
        ::getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        return;
    ::close(s.fd);
    s.fd = -1;
}

// ggml's client ends the process when the other side does not speak its protocol, so it is greeted here first: command
// 14, a length, 24 bytes of capabilities; the answer is a length, the version, and capabilities again.
void greet(const std::string& endpoint, const std::string& host, const std::string& port) {
    const auto fail = [&](ErrorCode code, const std::string& why) { throw Error(code, "[device] " + why); };
    Socket s;
    connect_to(s, host, port);
    if (s.fd < 0)
        fail(ErrorCode::backend, "nobody answers at " + endpoint + "; start a worker there: sdltx-cli worker --host " +
                                     host + " --port " + port);
    constexpr size_t capabilities = 24;
    const uint64_t length = capabilities;
    std::array<uint8_t, 1 + sizeof(length) + capabilities> hello{14};
    std::memcpy(&hello[1], &length, sizeof(length));
    if (::send(s.fd, hello.data(), hello.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(hello.size()))
        fail(ErrorCode::backend, endpoint + " does not listen");
    std::array<uint8_t, sizeof(length) + 4 + capabilities> answer{};
    for (size_t got = 0; got < answer.size();) {
        if (!wait_for(s.fd, POLLIN))
            fail(ErrorCode::busy, "the worker at " + endpoint + " does not answer; it serves one client at a time");
        const ssize_t n = ::recv(s.fd, &answer[got], answer.size() - got, 0);
        if (n <= 0) fail(ErrorCode::backend, "what listens at " + endpoint + " is not a worker of sdltx");
        got += static_cast<size_t>(n);
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
std::atomic<bool> serving{false};
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
    if (serving) throw Error(ErrorCode::backend, std::string("[worker] the client asked for what cannot be: ") + text);
    std::string workers;
    const std::lock_guard<std::mutex> lock(reserved_mutex);
    for (const std::string& endpoint : reserved) workers += (workers.empty() ? "" : " or ") + endpoint;
    throw Error(ErrorCode::backend, "[device] the worker at " + workers + " is gone, or has run out of memory (" +
                                        text + "); start it again and load the model again");
}

namespace sdltx {

void serve(const std::string& host, int port, const std::string& device, int threads) {
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
    serving = true;
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
