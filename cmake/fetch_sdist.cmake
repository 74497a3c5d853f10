# sdltx_fetch_sdist(<variable> NAME <package> VERSION <version> SHA256 <hash> MEMBERS <path>... OVERRIDE <prefix>)
#
# Sets <variable> to a folder with the members of a pinned PyPI source distribution. The user can give, as a CMake or
# environment variable, <prefix>_SOURCE_DIR (the folder itself, used by the caller) or <prefix>_ARCHIVE (the .tar.gz).
function(sdltx_fetch_sdist variable)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "NAME;VERSION;SHA256;OVERRIDE" "MEMBERS")
  set(options)
  foreach(member IN LISTS arg_MEMBERS)
    list(APPEND options --member "${member}")
  endforeach()
  if(${arg_OVERRIDE}_ARCHIVE)
    list(APPEND options --archive "${${arg_OVERRIDE}_ARCHIVE}")
  endif()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/fetch_sdist.py" ${arg_NAME} ${arg_VERSION}
            ${arg_SHA256} "${CMAKE_BINARY_DIR}/_deps" ${options}
    OUTPUT_VARIABLE root
    ERROR_VARIABLE problem
    RESULT_VARIABLE status
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${problem}: -D${arg_OVERRIDE}_ARCHIVE=<${arg_NAME} .tar.gz> or "
                        "-D${arg_OVERRIDE}_SOURCE_DIR=<folder>")
  endif()
  set(${variable} "${root}" PARENT_SCOPE)
endfunction()

# Declares the two override variables of a dependency, with the environment as their default.
macro(sdltx_source_overrides prefix what)
  set(${prefix}_SOURCE_DIR "$ENV{${prefix}_SOURCE_DIR}" CACHE PATH "${what} source tree to build instead of the pinned one")
  set(${prefix}_ARCHIVE "$ENV{${prefix}_ARCHIVE}" CACHE FILEPATH "Local copy of the pinned ${what} archive")
endmacro()
