# digits_mlp: compiled by tbc 0.1.0 for native. For find_package.
if(TARGET digits_mlp)
  return()
endif()

add_library(digits_mlp STATIC IMPORTED GLOBAL)
set_target_properties(digits_mlp PROPERTIES
  IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/libdigits_mlp.a"
  INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}")

add_library(digits_mlp_shared SHARED IMPORTED GLOBAL)
set_target_properties(digits_mlp_shared PROPERTIES
  IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/libdigits_mlp.so"
  IMPORTED_IMPLIB "${CMAKE_CURRENT_LIST_DIR}/libdigits_mlp.so.lib"
  INTERFACE_COMPILE_DEFINITIONS TBC_DIGITS_MLP_SHARED
  INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}")

# What this CPU can do, for tbc_check.
add_library(digits_mlp_cpu STATIC "${CMAKE_CURRENT_LIST_DIR}/tbc_cpu.c"
            "${CMAKE_CURRENT_LIST_DIR}/tbc_self_test.c")
target_include_directories(digits_mlp_cpu PUBLIC "${CMAKE_CURRENT_LIST_DIR}")
set_target_properties(digits_mlp_cpu PROPERTIES
  C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
