#include "conditioning.h"

namespace sdltx {

void add_noise(StreamState& s, const std::vector<float>& noise, float k) {
    for (size_t i = 0; i < s.latent.size(); ++i) {
        const float m = s.mask[i / static_cast<size_t>(s.channels)];
        const float noisy = (1 - k) * s.latent[i] + k * noise[i];
        s.latent[i] = (1 - m) * s.clean[i] + m * noisy;
    }
}

void hold_conditioned(const StreamState& s, std::vector<float>& x0) {
    for (size_t i = 0; i < x0.size(); ++i) {
        const float m = s.mask[i / static_cast<size_t>(s.channels)];
        x0[i] = x0[i] * m + s.clean[i] * (1 - m);
    }
}

}  // namespace sdltx
