# ggml's CPU kernels once more for each of several instruction sets, all in one library; csrc/ggml/cpu_kernels.cpp chooses
# at run time. Gives the target `sdltx_cpu_levels`, which is empty in a build for the machine that builds.
#
# Each level is the target ggml-cpu, and our kernels in SDLTX_KERNELS, with other compiler flags. As all of them define the same names, every name of a level
# gets its suffix: only then is each function, inlined or not, that of its level.
include(CheckCXXCompilerFlag)

add_library(sdltx_cpu_levels INTERFACE)

# sdltx_add_cpu_level(<name as people see it> <suffix> <flag>...): nothing if the compiler does not know a flag.
function(sdltx_add_cpu_level name suffix)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "SDLTX_COMPILER_HAS${flag}" has)
    check_cxx_compiler_flag(${flag} ${has})
    if(NOT ${has})
      message(STATUS "No CPU kernels for ${name}: the compiler does not know ${flag}")
      return()
    endif()
  endforeach()

  get_target_property(folder ggml-cpu SOURCE_DIR)
  get_target_property(sources ggml-cpu SOURCES)
  get_target_property(includes ggml-cpu INCLUDE_DIRECTORIES)
  get_target_property(definitions ggml-cpu COMPILE_DEFINITIONS)
  get_directory_property(more DIRECTORY "${folder}" COMPILE_DEFINITIONS)
  list(TRANSFORM sources PREPEND "${folder}/" REGEX "^[^/]")
  # What takes a run's time is in our kernels; ggml's are smaller by a third without -O3.
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS -O2)
  set(level ggml-cpu-${suffix})
  add_library(${level} STATIC EXCLUDE_FROM_ALL ${sources} ${SDLTX_KERNELS})
  target_include_directories(${level} PRIVATE ${includes})
  target_compile_definitions(${level} PRIVATE ${definitions} ${more})
  target_compile_features(${level} PRIVATE c_std_11 cxx_std_17)
  target_compile_options(${level} PRIVATE ${ARGN})
  set_target_properties(${level} PROPERTIES POSITION_INDEPENDENT_CODE ON
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_link_libraries(${level} PRIVATE ggml-base)
  if(GGML_OPENMP_ENABLED)
    find_package(OpenMP REQUIRED)
    target_link_libraries(${level} PRIVATE OpenMP::OpenMP_C OpenMP::OpenMP_CXX)
  endif()

  set(renamed "${CMAKE_CURRENT_BINARY_DIR}/_cpu_levels/lib${level}.a")
  set(script "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/rename_symbols.py")
  add_custom_command(
    OUTPUT "${renamed}"
    COMMAND "${Python_EXECUTABLE}" "${script}" --nm "${CMAKE_NM}" --objcopy "${CMAKE_OBJCOPY}"
            "$<TARGET_FILE:${level}>" "${renamed}" _${suffix}
    DEPENDS ${level} "${script}"
    COMMENT "CPU kernels for ${name}"
    VERBATIM)
  add_custom_target(${level}-renamed DEPENDS "${renamed}")
  add_dependencies(sdltx_cpu_levels ${level}-renamed)
  target_link_libraries(sdltx_cpu_levels INTERFACE "${renamed}")
  set_property(TARGET sdltx_cpu_levels APPEND_STRING PROPERTY SDLTX_LEVELS "LEVEL(\"${name}\", ${suffix})\n")
endfunction()

# Other processors than x86-64 have no levels here yet.
if(NOT SDLTX_PORTABLE OR NOT SDLTX_X86_64)
  set_property(TARGET sdltx_cpu_levels PROPERTY SDLTX_LEVELS "")
else()
  set(v3 -msse4.2 -mavx -mavx2 -mfma -mf16c -mbmi2)
  set(v4_vnni ${v3} -mavx512f -mavx512cd -mavx512vl -mavx512dq -mavx512bw -mavx512vnni)
  # The best first. Each costs most of a minute of one core to build, so AVX512 without VNNI, which two generations of
  # servers have, is not worth a level.
  sdltx_add_cpu_level("x86-64-v4+bf16" v4_bf16 ${v4_vnni} -mavx512bf16)
  sdltx_add_cpu_level("x86-64-v4+vnni" v4_vnni ${v4_vnni})
  sdltx_add_cpu_level("x86-64-v3+vnni" v3_vnni ${v3} -mavxvnni)
  sdltx_add_cpu_level("x86-64-v3" v3 ${v3})
  # ggml's list of backends asks us for that of the CPU.
  get_target_property(folder ggml SOURCE_DIR)
  set_source_files_properties("${folder}/ggml-backend-reg.cpp" TARGET_DIRECTORY ggml
    PROPERTIES COMPILE_DEFINITIONS ggml_backend_cpu_reg=sdltx_chosen_cpu_reg)
endif()

get_target_property(levels sdltx_cpu_levels SDLTX_LEVELS)
file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/_cpu_levels/cpu_levels.inc" CONTENT "${levels}")
target_include_directories(sdltx_cpu_levels INTERFACE "${CMAKE_CURRENT_BINARY_DIR}/_cpu_levels")
