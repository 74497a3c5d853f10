#include "worker_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/log.h"
#include "base/sha256.h"
#include "ggml-rpc.h"
#include "rpc_failures.h"

// The system's own from here on.
#undef send
#undef recv
#undef accept
#undef connect

namespace sdltx {

static_assert(RPC_PROTO_MAJOR_VERSION == 5 && RPC_PROTO_MINOR_VERSION == 0, "are the numbers of commands the same?");

namespace {

using std::chrono::milliseconds;

// The rest of a message that has begun.
constexpr milliseconds rest_time = std::chrono::seconds(60);
constexpr int longest_wait_ms = 1000 * 1000 * 1000;

milliseconds seconds_from(const char* variable, milliseconds otherwise, double most) {
    const char* text = std::getenv(variable);
    const double wanted = text ? std::strtod(text, nullptr) : 0;
    return wanted > 0 && wanted <= most ? milliseconds(static_cast<int64_t>(wanted * 1000)) : otherwise;
}

// An answer of a worker that computes: half an hour, or what SDLTX_WORKER_PATIENCE says.
milliseconds patience() {
    constexpr double longest = 7 * 24 * 3600;
    return seconds_from("SDLTX_WORKER_PATIENCE", std::chrono::minutes(30), longest);
}

// Of ggml's protocol: what a client asked for last, on this thread, and how much of the answer's eight bytes of size
// were read.
enum Command : uint8_t { get_alignment = 1, get_max_size = 2, device_count = 15 };
thread_local uint8_t command = 0;
thread_local size_t size_bytes = 0;

// What ggml's client believes as it is told: it makes as many devices, divides by the alignment, and cuts into sizes.
bool is_watched(uint8_t of) { return of == get_alignment || of == get_max_size || of == device_count; }
bool is_possible(uint8_t of, uint64_t told) {
    constexpr uint64_t most_devices = 64, largest_alignment = 1 << 20, least_size = 1 << 20;
    if (of == device_count) return told <= most_devices;
    if (of == get_alignment) return told > 0 && told <= largest_alignment && (told & (told - 1)) == 0;
    return told >= least_size;
}

std::atomic<bool> serving{false};
// The client that was accepted last has not said anything yet.
std::atomic<bool> fresh{false};

// A machine that is gone is found out within a minute, and who does not read is given up.
void watch_over(int fd) {
    const int on = 1, idle = 30, interval = 10, count = 3, unsent_ms = 60000;
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unsent_ms, sizeof(unsent_ms));
    const timeval limit{rest_time.count() / 1000, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

bool send_all(int fd, const void* data, size_t size) {
    return ::send(fd, data, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

// All of them before `end`.
bool receive_all(int fd, void* data, size_t size, std::chrono::steady_clock::time_point end) {
    for (size_t got = 0; got < size;) {
        const auto left = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
        if (left.count() <= 0 || !wait_for(fd, POLLIN, left)) return false;
        const ssize_t n = ::recv(fd, static_cast<uint8_t*>(data) + got, size - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (n > 0) got += static_cast<size_t>(n);
    }
    return true;
}

using Nonce = std::array<uint8_t, 32>;

Nonce fresh_nonce() {
    Nonce nonce{};
    if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) std::abort();
    return nonce;
}

// What only who knows the secret can say to these two numbers; the sides say different things.
Digest proof(const std::string& secret, const char* side, const Nonce& of_worker, const Nonce& of_client) {
    std::string message(side);
    message.append(of_worker.begin(), of_worker.end()).append(of_client.begin(), of_client.end());
    return hmac_sha256(secret, message);
}

// The side that is asked.
bool ask_for_secret(int fd, const std::string& secret) {
    const auto end = std::chrono::steady_clock::now() + answer_time();
    const Nonce own = fresh_nonce();
    Nonce theirs{};
    Digest said{};
    if (!send_all(fd, secret_wanted, secret_wanted_size) || !send_all(fd, own.data(), own.size()) ||
        !receive_all(fd, theirs.data(), theirs.size(), end) || !receive_all(fd, said.data(), said.size(), end))
        return false;
    if (!equal(said, proof(secret, "client", own, theirs))) return false;
    const Digest answer = proof(secret, "worker", own, theirs);
    return send_all(fd, answer.data(), answer.size());
}

}  // namespace

Socket::~Socket() {
    if (fd >= 0) ::close(fd);
}

milliseconds answer_time() {
    constexpr double longest = 3600;
    return seconds_from("SDLTX_WORKER_TIMEOUT", std::chrono::seconds(5), longest);
}

std::string worker_secret() {
    const char* secret = std::getenv("SDLTX_WORKER_SECRET");
    return secret ? secret : "";
}

bool wait_for(int fd, short events, milliseconds limit) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + limit;
    for (;;) {
        const auto left = std::chrono::ceil<milliseconds>(end - Clock::now()).count();
        pollfd p{fd, events, 0};
        const int ready =
            ::poll(&p, 1, static_cast<int>(std::min<int64_t>(std::max<int64_t>(left, 0), longest_wait_ms)));
        if (ready >= 0 || errno != EINTR) return ready == 1 && (p.revents & events);
    }
}

void connect_to(Socket& s, const std::string& host, const std::string& port) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return;
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
    s.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s.fd < 0) return;
    int error = 0;
    socklen_t size = sizeof(error);
    if (::connect(s.fd, found->ai_addr, found->ai_addrlen) == 0) return;
    if (errno == EINPROGRESS && wait_for(s.fd, POLLOUT, answer_time()) &&
        ::getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        return;
    ::close(s.fd);
    s.fd = -1;
}

Handshake prove_to_worker(int fd, const std::string& secret) {
    const auto end = std::chrono::steady_clock::now() + answer_time();
    char wanted[secret_wanted_size];
    // It waits for us to begin, or is busy.
    char first;
    if (!wait_for(fd, POLLIN, answer_time()) || ::recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        return Handshake::not_asked;
    Nonce theirs{};
    if (!receive_all(fd, wanted, sizeof(wanted), end) || !receive_all(fd, theirs.data(), theirs.size(), end))
        return Handshake::silent;
    if (std::memcmp(wanted, secret_wanted, sizeof(wanted)) != 0) return Handshake::silent;
    const Nonce own = fresh_nonce();
    const Digest said = proof(secret, "client", theirs, own);
    Digest answer{};
    if (!send_all(fd, own.data(), own.size()) || !send_all(fd, said.data(), said.size()) ||
        !receive_all(fd, answer.data(), answer.size(), end))
        return Handshake::refused;
    return equal(answer, proof(secret, "worker", theirs, own)) ? Handshake::done : Handshake::refused;
}

void serve_connections() { serving = true; }
bool serves_connections() { return serving; }

}  // namespace sdltx

namespace {

// Tells the parent that from now on clients come in: a byte into the pipe that SDLTX_WORKER_SERVES names.
void tell_parent() {
    static std::atomic<bool> told{false};
    const char* pipe = std::getenv("SDLTX_WORKER_SERVES");
    if (told.exchange(true) || !pipe) return;
    const int fd = std::atoi(pipe);
    if (fd > STDERR_FILENO && ::write(fd, "s", 1) == 1) ::close(fd);
}

}  // namespace

// The next client that may come in; others are not heard.
int sdltx_rpc_accept(int socket, sockaddr* address, socklen_t* length) {
    using namespace sdltx;
    tell_parent();
    const std::string secret = worker_secret();
    for (;;) {
        const int fd = ::accept(socket, address, length);
        if (fd < 0) {
            // A client that was gone before it came in, or a moment without room, is no reason to stop.
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return fd;
            ::usleep(100000);
            continue;
        }
        watch_over(fd);
        if (secret.empty() || ask_for_secret(fd, secret)) {
            fresh = true;
            return fd;
        }
        log(30, "[worker] a client that does not know the secret was turned away");
        ::close(fd);
    }
}

int sdltx_rpc_connect(int socket, const sockaddr* address, socklen_t length) {
    using namespace sdltx;
    const int connected = ::connect(socket, address, length);
    if (connected < 0) return connected;
    watch_over(socket);
    const std::string secret = worker_secret();
    if (secret.empty() || prove_to_worker(socket, secret) == Handshake::done) return 0;
    errno = ECONNREFUSED;
    return -1;
}

// A closed connection is an error of the call, and no signal that ends the program.
ssize_t sdltx_rpc_send(int socket, const void* data, size_t size, int flags) {
    if (size == 1) {
        sdltx::command = *static_cast<const uint8_t*>(data);
        sdltx::size_bytes = 0;
    }
    return ::send(socket, data, size, flags | MSG_NOSIGNAL);
}

// A command may be waited for as long as its client lives; all else has an end.
ssize_t sdltx_rpc_recv(int socket, void* data, size_t size, int flags) {
    using namespace sdltx;
    const bool between_commands = serving && size == 1;
    if (!between_commands || fresh) {
        const auto limit = !serving ? patience() : fresh ? answer_time() : rest_time;
        fresh = false;
        if (!wait_for(socket, POLLIN, limit)) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    if (serving || !is_watched(command) || size > sizeof(uint64_t)) return ::recv(socket, data, size, flags);
    if (size_bytes < sizeof(uint64_t)) {
        const ssize_t n = ::recv(socket, data, size, flags);
        if (n > 0) size_bytes += static_cast<size_t>(n);
        return n;
    }
    uint64_t told = 0;
    if (!receive_all(socket, &told, size, std::chrono::steady_clock::now() + patience()) ||
        !is_possible(command, told)) {
        errno = EPROTO;
        return -1;
    }
    std::memcpy(data, &told, size);
    command = 0;
    return static_cast<ssize_t>(size);
}
