// From sound to what the audio VAE encodes (audio.md section 2; ltx-core AudioProcessor, which calls torchaudio):
// resampling and a logarithmic mel spectrogram. Plain arithmetic in double.
#pragma once

#include <cstdint>

#include "base/export.h"
#include "base/types.h"

namespace sdltx {

constexpr int analysis_rate = 16000;                           // Hz
constexpr int64_t analysis_window = 1024, analysis_hop = 160;  // samples

// (channels, n) at `from` Hz -> (channels, ceil(n to / from)) at `to` Hz: windowed sinc (Hann, 6 zero crossings,
// rolloff 0.99), silence beyond the ends. Rates are 1 to 1,000,000.
SDLTX_EXPORT Array resample(const Array& wave, int from, int to);

// (channels, n) at 16 kHz -> (channels, 1 + n / 160, bins), natural logarithm of mel magnitudes, at least 1e-5. Frames
// are centred, the ends mirrored; filters have Slaney's scale and area. Throws Error(invalid_request) unless n > 512.
SDLTX_EXPORT Array log_mel(const Array& wave, int64_t bins);

}  // namespace sdltx
