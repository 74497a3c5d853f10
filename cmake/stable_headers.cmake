# Copies the headers below `from` to a place that stays: pip installs what a build needs into another folder for each build,
# and all that includes them would be built anew. The place goes into `result`.
function(stable_headers name from result)
  set(copies "${CMAKE_BINARY_DIR}/_deps/${name}")
  file(GLOB_RECURSE headers RELATIVE "${from}" "${from}/*.h" "${from}/*.hpp")
  foreach(header IN LISTS headers)
    configure_file("${from}/${header}" "${copies}/${header}" COPYONLY)
  endforeach()
  set(${result} "${copies}" PARENT_SCOPE)
endfunction()
