# The header-only JSON library as the target `sdltx_json`: from the PyPI package nlohmann-json, else from the system.
include(stable_headers)
add_library(sdltx_json INTERFACE)

# The package is located without being imported: importing it needs its run-time dependencies.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "from importlib.util import find_spec; print(find_spec('nlohmann_json').submodule_search_locations[0])"
  OUTPUT_VARIABLE package
  RESULT_VARIABLE status
  ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)

if(status EQUAL 0 AND EXISTS "${package}/include/nlohmann/json.hpp")
  stable_headers(nlohmann_json "${package}/include" copies)
  target_include_directories(sdltx_json SYSTEM INTERFACE "${copies}")
else()
  find_package(nlohmann_json 3.11 QUIET CONFIG)
  if(NOT nlohmann_json_FOUND)
    message(FATAL_ERROR "nlohmann/json.hpp was not found; run '${Python_EXECUTABLE} -m pip install nlohmann-json' "
                        "or install the library's CMake package (3.11 or newer)")
  endif()
  target_link_libraries(sdltx_json INTERFACE nlohmann_json::nlohmann_json)
endif()
