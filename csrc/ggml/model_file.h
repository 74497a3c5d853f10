// Model files: safetensors and GGUF behind one interface, several files as one name space.
// Tensor bytes stay in the memory-mapped files; nothing is copied or converted here.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/export.h"
#include "base/problems.h"
#include "ggml.h"

struct stat;

namespace sdltx {

// A read-only memory-mapped file. Base address is page aligned.
class SDLTX_EXPORT MappedFile {
 public:
    explicit MappedFile(const std::string& path);  // throws Error(model_file)
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const std::string& path() const { return path_; }
    const uint8_t* data() const { return data_; }
    size_t size() const { return size_; }
    // Whether its path still leads to the file that was mapped, and that as it was then.
    bool is_current() const;
    // Advice to the kernel about a part of the file: it is about to be read, or will not be read again soon.
    void will_need(const uint8_t* begin, size_t bytes) const;
    void forget(const uint8_t* begin, size_t bytes) const;
    // Reads a part into memory, until it is to stop; and makes room where it was.
    void read(const uint8_t* begin, size_t bytes, const std::atomic<bool>& stop) const;
    void drop(const uint8_t* begin, size_t bytes) const;
    // The share of its pages that are in memory.
    double resident() const;
    // Bytes per second that its disk gives now, as a few reads past the file cache show; 0 where there are none.
    double speed() const;

 private:
    void advise(const uint8_t* begin, size_t bytes, int advice) const;

    // What changes with a file.
    struct Stamp {
        uint64_t device = 0, inode = 0;
        int64_t size = 0, seconds = 0, nanoseconds = 0;
    };
    static Stamp stamp_of(const struct stat& st);

    std::string path_;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
    int descriptor_ = -1;
    Stamp stamp_;
};

// Throws Error(model_file) if a part of the file that is mapped around this address could not be read when it was
// needed: it was cut off, or its disk failed. To be called after what was read, before it counts.
void check_mapped(const void* address);
// The same before the system reads this memory for itself, which then only says "bad address".
void check_mapped(const uint8_t* begin, size_t bytes);

// Of the names of tensors and files.
bool ends_with(const std::string& name, const std::string& tail);

// How weights are stored that ggml has no type for; see encodings.h.
enum class Encoding { none, fp8, mxfp8, int8, nvfp4 };

struct TensorInfo {
    int64_t elements() const;

    std::string name;            // as the network asks for it (prefixes normalised)
    std::string stored_name;     // as in the file
    std::string dtype;           // as the file spells it: "BF16", "q4_K", ...
    ggml_type type;              // GGML_TYPE_COUNT when ggml has no such type
    std::vector<int64_t> shape;  // slowest axis first
    const uint8_t* data;
    size_t nbytes;
    const class ModelFile* file;
    mutable bool used = false;  // some network has declared it
    Encoding encoding = Encoding::none;
    const TensorInfo* scale = nullptr;        // of an encoded weight: one number, or one for each row
    const TensorInfo* block_scale = nullptr;  // of an encoded weight: a byte for each block of a row
    int64_t rotation = 0;                     // of int8 weights: size of the groups that were rotated
};

// A GGUF metadata value. Strings and numbers of arrays lie in the mapped file.
struct GgufValue {
    enum class Kind { integer, real, boolean, string, array } kind;
    int64_t integer = 0;
    double real = 0;
    std::string_view string;
    std::vector<std::string_view> strings;  // array of strings
    uint32_t item = 0;                      // of an array of numbers or booleans: their type in the file,
    uint64_t count = 0;                     // how many there are,
    const uint8_t* data = nullptr;          // and where

    std::vector<double> numbers() const;
};

// Of one file; the largest that are known, with three scales for each weight, have fifteen thousand. What is kept of
// each takes some hundreds of bytes.
constexpr size_t max_tensors = 1 << 15;

class SDLTX_EXPORT ModelFile {
 public:
    // Opens and checks one file by its content, not its extension. Throws Error(model_file).
    static std::unique_ptr<ModelFile> open(const std::string& path);

    const std::string& path() const { return map_->path(); }
    const MappedFile& map() const { return *map_; }
    bool is_gguf() const { return gguf_; }
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    std::vector<TensorInfo>& tensors() { return tensors_; }

    // Text metadata: safetensors `__metadata__` and GGUF strings alike.
    std::optional<std::string> metadata(const std::string& key) const;
    const std::unordered_map<std::string, std::string>& texts() const { return text_; }
    // A GGUF value of any type, or null (always null for safetensors).
    const GgufValue* value(const std::string& key) const;
    // Makes it a part of what begins with `first`: what its own metadata lacks is looked for there.
    void join(const ModelFile& first) { first_ = &first == this ? nullptr : &first; }

 private:
    friend std::unique_ptr<ModelFile> open_gguf(std::unique_ptr<MappedFile>);
    friend std::unique_ptr<ModelFile> open_safetensors(std::unique_ptr<MappedFile>);

    std::unique_ptr<MappedFile> map_;
    const ModelFile* first_ = nullptr;
    bool gguf_ = false;
    std::vector<TensorInfo> tensors_;
    std::unordered_map<std::string, std::string> text_;
    std::unordered_map<std::string, GgufValue> values_;
};

struct Given;  // a file, and why it is looked at

// What files call things, and what else they are than parts of a model. The layer above knows; the default changes no
// name and takes all that there is for parts.
struct Naming {
    // Gives every tensor the name that the networks ask for. The files of a set are parts of one: what tells how its
    // names are spelled is in any of them.
    void (*normalise)(const std::vector<ModelFile*>& set) = nullptr;
    // What a file is that holds no part of a model but changes one or comes after it; empty for all else.
    struct Addition {
        const char* kind;    // "a LoRA"
        const char* advice;  // to who gives it as a part of a model: "give it as a LoRA"
    };
    std::optional<Addition> (*addition)(const ModelFile& file) = nullptr;
    // Tensors that stand for a part: a model has one of each.
    struct Probe {
        const char* tensor;
        const char* part;
    };
    std::vector<Probe> parts;
};

// For readers: throws Error(model_file) if two tensors share bytes.
void check_places(const ModelFile& file);

// Every tensor of every file under the name that the networks use.
class SDLTX_EXPORT ModelFiles {
 public:
    // `paths`: files, or folders whose *.safetensors and *.gguf files are taken, with those of their subfolders and
    // what an index json lists. A part NAME-00001-of-00003 brings the others. Throws Error(model_file), and
    // Error(model_mismatch) for a file given by name that holds something else than a part of a model, and for parts
    // that several files hold. With `problems` it goes on instead, without the file that cannot be read.
    ModelFiles(const std::vector<std::string>& paths, const Naming& naming, Problems* problems = nullptr);
    // A file that changes a model or comes after it, of this kind; or the folder in which it is the only one, or is
    // called adapter_model.safetensors. Throws Error(model_file), and Error(model_mismatch) for another one.
    ModelFiles(const std::string& path, const std::string& kind, const Naming& naming);
    ~ModelFiles();

    const TensorInfo* find(const std::string& name) const;
    // The two files that hold `name`, or null when one or none does.
    const std::pair<std::string, std::string>* duplicate(const std::string& name) const;
    bool has_prefix(const std::string& prefix) const;
    // Paths of the files of which no tensor is used, and the names of all tensors that are not.
    std::vector<std::string> unused_files() const;
    std::vector<std::string> unused_tensors() const;
    const std::vector<std::unique_ptr<ModelFile>>& files() const { return files_; }
    // What changes a model or comes after it.
    struct Addition {
        std::unique_ptr<ModelFile> file;
        std::string kind;
    };
    const std::vector<Addition>& additions() const { return additions_; }
    // Folders given, plus the folders of the files given: where tokenizer and config files are looked for.
    const std::vector<std::string>& folders() const { return folders_; }
    // Text metadata `key` of the first file that holds a tensor starting with `prefix`, else of any file.
    std::optional<std::string> metadata(const std::string& key, const std::string& prefix = "") const;
    // Text metadata `key` of all files that have it, in that order.
    std::vector<std::string> all_metadata(const std::string& key, const std::string& prefix = "") const;

 private:
    // Files that are parts of one.
    struct Set {
        std::string name;
        bool beside_index;
        std::vector<std::unique_ptr<ModelFile>> files;
    };
    void open(const Given& given, bool needed, const Naming& naming, std::vector<Set>& sets);
    void add(Set& set, const Naming& naming, std::unordered_set<std::string>& held);

    std::vector<std::unique_ptr<ModelFile>> files_;
    std::vector<Addition> additions_;
    std::vector<std::string> folders_;
    std::unordered_map<std::string, const TensorInfo*> by_name_;
    std::unordered_map<std::string, std::pair<std::string, std::string>> duplicates_;
};

}  // namespace sdltx
