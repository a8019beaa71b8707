// MLX's affine quantization: groups of 64 weights of BITS bits, the lowest bits first, that share a scale and a bias.

// The rows of a matrix (..., K): words (..., K * BITS / 32), scales and biases (..., K / 64).
template <int K, int BITS, typename T>
struct Affine {
  static constexpr constant int width = 128 / BITS;  // weights in the 16 bytes that a lane reads at once
  const device uint4* words;
  const device T* scales;
  const device T* biases;

  Affine(const device uint32_t* w, const device T* s, const device T* b)
      : words((const device uint4*)w), scales(s), biases(b) {}

  // The weights of run `run` of a row, times x, whose sum is given: sum of (scale * q + bias) * x.
  float dot(uint row, uint run, const thread float* x, float total) const thread {
    uint4 w = words[row * (K / width) + run];
    uint group = row * (K / 64) + run * width / 64;
    constexpr int n = width / 4;
    float sum = word_dot(w.x, x) + word_dot(w.y, x + n) + word_dot(w.z, x + 2 * n) + word_dot(w.w, x + 3 * n);
    return fma(float(scales[group]), sum, float(biases[group]) * total);
  }

  static float word_dot(uint word, const thread float* x) {
    float sum = 0;
    for (int i = 0; i < 32 / BITS; i++) sum = fma(float((word >> (BITS * i)) & ((1u << BITS) - 1)), x[i], sum);
    return sum;
  }
};
