// Names with shapes, a line each, as a file of a model: up to the networks that they make up, with a configuration or
// without. A line that begins with '#' is metadata: its key, a blank, its text.
#include <cstdlib>

#include "base/json.h"
#include "fuzz.h"
#include "ltxv/config.h"
#include "model/inspect.h"
#include "model/names.h"

namespace sdltx::fuzz {

namespace {

constexpr size_t most_bytes = size_t{4} << 20, most_dims = 6;

void add_tensor(TensorFile& file, const std::string& line, size_t& left) {
    const size_t end = std::min(line.find(' '), line.size());
    std::vector<int64_t> shape;
    size_t bytes = 2;
    for (const char* at = line.c_str() + end; *at != '\0' && shape.size() < most_dims;) {
        char* after = nullptr;
        const int64_t n = std::strtoll(at, &after, 10);
        if (after == at) break;
        // More than there can be is what the file readers are tried with.
        if (n < 0 || (n > 0 && bytes > left / static_cast<size_t>(n))) return;
        shape.push_back(n);
        bytes *= static_cast<size_t>(n);
        at = after;
    }
    left -= std::min(left, bytes);
    file.add(line.substr(0, end), "BF16", shape, std::string(bytes, '\x3C'));
}

void describe(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    TensorFile file;
    size_t left = most_bytes;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string line(text.substr(at, end - at));
        const size_t blank = line.find(' ');
        if (!line.empty() && line.front() == '#')
            file.add_metadata(line.substr(1, blank - 1), blank == std::string::npos ? "" : line.substr(blank + 1));
        else if (!line.empty())
            add_tensor(file, line, left);
        at = end + 1;
    }
    const std::string path = file_of(file.bytes());
    expect(Json::accept(inspect({path})), "an inspection is not JSON");
    expect(Json::accept(config_text(ModelFiles({path}, ltx_naming()))), "a configuration is not JSON");
}

const Register shapes("shapes", describe);

}  // namespace

}  // namespace sdltx::fuzz
