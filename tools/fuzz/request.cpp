// Any text as a request; what is accepted says the same once it is written and read again.
#include "clip/request.h"

#include "fuzz.h"

namespace sdltx::fuzz {

namespace {

void read(const uint8_t* data, size_t size) {
    Request request;
    read_json(parse_json_text({reinterpret_cast<const char*>(data), size}, ErrorCode::invalid_request, "request"),
              request);
    const Json told = to_json(request);
    Request again;
    read_json(Json::parse(told.dump(-1, ' ', false, Json::error_handler_t::replace)), again);
    expect(told.dump(-1, ' ', false, Json::error_handler_t::replace) ==
               to_json(again).dump(-1, ' ', false, Json::error_handler_t::replace),
           "a request changes when it is kept");
    check(request.options);
}

const Register request("request", read);

}  // namespace

}  // namespace sdltx::fuzz
