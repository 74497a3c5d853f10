#include "pieces.h"

#include <algorithm>

namespace sdltx {

std::vector<RowPiece> cut_rows(const Plan& g, int64_t rows, int64_t work) {
    constexpr int64_t together = 64;
    const int64_t fitting = g.backend().patience() / std::max<int64_t>(work, 1);
    const int64_t each = std::max(together, fitting / together * together);
    std::vector<RowPiece> pieces;
    int64_t first = 0;  // what is left over at the end joins the last piece if it is little
    for (; rows - first >= each + together; first += each) pieces.push_back({first, each});
    pieces.push_back({first, rows - first});
    return pieces;
}

}  // namespace sdltx
