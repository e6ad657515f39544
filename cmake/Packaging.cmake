# SPDX-License-Identifier: MIT
#
# What gets installed, in four components: library (the shared object), dev (what it takes to
# compile against it), broker and cli. Everything is found relative to where it lies, so a staged
# or moved tree works as it is.

include(CMakePackageConfigHelpers)

set(cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/lockkeeper")
set(version_script "${PROJECT_SOURCE_DIR}/client/lockkeeper.map")

set_target_properties(
  lockkeeper
  PROPERTIES VERSION "${PROJECT_VERSION}"
             SOVERSION "${PROJECT_VERSION_MAJOR}"
             LINK_DEPENDS "${version_script}")
target_link_options(lockkeeper PRIVATE "LINKER:--version-script=${version_script}")
if(NOT LK_SANITIZE AND NOT LK_FUZZ)
  # A symbol that nobody defines is our mistake, not the surprise of the first program to link
  # us. Sanitized objects do leave some open, for the executable's run-time to fill.
  target_link_options(lockkeeper PRIVATE "LINKER:--no-undefined")
endif()

install(
  TARGETS lockkeeper
  EXPORT lockkeeperTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT library NAMELINK_COMPONENT dev
  INCLUDES
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(
  DIRECTORY "${PROJECT_SOURCE_DIR}/include/lockkeeper"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  COMPONENT dev
  FILES_MATCHING
  PATTERN "*.h")

# lockkeeper::lockkeeper for find_package(lockkeeper).
install(
  EXPORT lockkeeperTargets
  NAMESPACE lockkeeper::
  DESTINATION "${cmake_dir}"
  COMPONENT dev)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/lockkeeperConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/lockkeeperConfig.cmake"
                              INSTALL_DESTINATION "${cmake_dir}")
# Before 1.0 a minor version may break what it likes.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/lockkeeperConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(
  FILES "${PROJECT_BINARY_DIR}/lockkeeperConfig.cmake"
        "${PROJECT_BINARY_DIR}/lockkeeperConfigVersion.cmake"
  DESTINATION "${cmake_dir}"
  COMPONENT dev)

# From the folder of lockkeeper.pc to the prefix and on to the other two.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY
           "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" OUTPUT_VARIABLE pc_to_prefix)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_INCLUDEDIR BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}"
           OUTPUT_VARIABLE prefix_to_include)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_LIBDIR BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}"
           OUTPUT_VARIABLE prefix_to_lib)
configure_file("${PROJECT_SOURCE_DIR}/cmake/lockkeeper.pc.in" "${PROJECT_BINARY_DIR}/lockkeeper.pc"
               @ONLY)
install(
  FILES "${PROJECT_BINARY_DIR}/lockkeeper.pc"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig"
  COMPONENT dev)

cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_LIBDIR BASE_DIRECTORY "${CMAKE_INSTALL_FULL_BINDIR}"
           OUTPUT_VARIABLE bin_to_lib)
foreach(program_component IN ITEMS lockkeeperd=broker lk_cli=cli)
  string(REPLACE "=" ";" program_component "${program_component}")
  list(GET program_component 0 program)
  list(GET program_component 1 component)
  if(TARGET ${program})
    set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/${bin_to_lib}")
    install(TARGETS ${program} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
                                       COMPONENT ${component})
  endif()
endforeach()
