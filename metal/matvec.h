// Dot products of a vector with rows of a matrix, by one simdgroup.

// x[0..N) of device memory into registers; returns their sum.
template <int N, typename T>
inline float load(const device T* x, thread float* v) {
  float total = 0;
  for (int i = 0; i < N; i += 4) {
    float4 four = float4(*(const device vec<T, 4>*)(x + i));
    for (int j = 0; j < 4; j++) v[i + j] = four[j];
    total += four.x + four.y + four.z + four.w;
  }
  return total;
}

// sums[r] += this lane's part of the dot product of row rows[r] with x. Lane l takes every 32nd run of 16 bytes,
// beginning with the l-th: the lanes together read 512 neighbouring bytes of a row, and each byte is read once.
// x stays in registers for all the rows.
template <int ROWS, int K, typename Matrix, typename T>
inline void add_partial_dots(Matrix w, const thread uint* rows, const device T* x, uint lane, thread float* sums) {
  for (uint run = lane; run < K / Matrix::width; run += 32) {
    float v[Matrix::width];
    float total = load<Matrix::width>(x + run * Matrix::width, v);
    for (int r = 0; r < ROWS; r++) sums[r] += w.dot(rows[r], run, v, total);
  }
}

// sums[r] = the dot product of row rows[r] with x, in every lane.
template <int ROWS, int K, typename Matrix, typename T>
inline void matvec(Matrix w, const thread uint* rows, const device T* x, uint lane, thread float* sums) {
  for (int r = 0; r < ROWS; r++) sums[r] = 0;
  add_partial_dots<ROWS, K>(w, rows, x, lane, sums);
  for (int r = 0; r < ROWS; r++) sums[r] = simd_sum(sums[r]);
}
