#include "sha256.h"

#include <cmath>
#include <cstring>

namespace sdltx {

namespace {

using State = std::array<uint32_t, 8>;
constexpr size_t block_size = 64;

constexpr uint32_t turned(uint32_t x, int by) { return x >> by | x << (32 - by); }

// 32 bits behind the point of the square roots of the first 8 primes and of the cube roots of the first 64.
struct Constants {
    State start{};
    std::array<uint32_t, 64> rounds{};
    Constants() {
        size_t found = 0;
        for (uint32_t n = 2; found < rounds.size(); ++n) {
            bool prime = true;
            for (uint32_t d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
            if (!prime) continue;
            // Long doubles have 64 bits of which at most 4 are before the point.
            const auto bits = [](long double root) {
                return static_cast<uint32_t>(std::floor((root - std::floor(root)) * 0x1p32L));
            };
            if (found < start.size()) start[found] = bits(std::sqrt(static_cast<long double>(n)));
            rounds[found++] = bits(std::cbrt(static_cast<long double>(n)));
        }
    }
};

void add_block(State& state, const uint8_t* block, const Constants& c) {
    std::array<uint32_t, 64> w{};
    for (size_t i = 0; i < 16; ++i)
        w[i] = static_cast<uint32_t>(block[4 * i]) << 24 | static_cast<uint32_t>(block[4 * i + 1]) << 16 |
               static_cast<uint32_t>(block[4 * i + 2]) << 8 | block[4 * i + 3];
    for (size_t i = 16; i < w.size(); ++i) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] =
            w[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[i - 7] + (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    State s = state;
    for (size_t i = 0; i < w.size(); ++i) {
        const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]),
                       majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]),
                       first =
                           s[7] + (turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25)) + choice + c.rounds[i] + w[i],
                       second = (turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22)) + majority;
        s = {first + second, s[0], s[1], s[2], s[3] + first, s[4], s[5], s[6]};
    }
    for (size_t i = 0; i < s.size(); ++i) state[i] += s[i];
}

}  // namespace

Digest sha256(std::string_view message) {
    static const Constants constants;
    State state = constants.start;
    // A one, zeros, and the number of bits in eight bytes.
    std::string padded(message);
    padded += '\x80';
    padded.resize((padded.size() + 8 + block_size - 1) / block_size * block_size - 8, '\0');
    for (int shift = 56; shift >= 0; shift -= 8)
        padded += static_cast<char>(static_cast<uint64_t>(message.size()) * 8 >> shift & 0xff);
    for (size_t at = 0; at < padded.size(); at += block_size)
        add_block(state, reinterpret_cast<const uint8_t*>(padded.data()) + at, constants);
    Digest digest{};
    for (size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<uint8_t>(state[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
}

Digest hmac_sha256(std::string_view key, std::string_view message) {
    std::string inner(block_size, '\x36'), outer(block_size, '\x5c');
    const Digest hashed = sha256(key);
    const std::string_view used =
        key.size() > block_size ? std::string_view(reinterpret_cast<const char*>(hashed.data()), hashed.size()) : key;
    for (size_t i = 0; i < used.size(); ++i) {
        inner[i] = static_cast<char>(inner[i] ^ used[i]);
        outer[i] = static_cast<char>(outer[i] ^ used[i]);
    }
    const Digest digest = sha256(inner.append(message));
    return sha256(outer.append(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

bool equal(const Digest& a, const Digest& b) {
    volatile uint8_t different = 0;
    for (size_t i = 0; i < a.size(); ++i) different = different | (a[i] ^ b[i]);
    return different == 0;
}

}  // namespace sdltx
