# Sourced by what measures: upserv as operators run it, compiled, with the runtime beside it (as in the Debian
# package). Sets UPSERV_PROGRAM. A checkout takes types off each time it starts, which takes time and memory.
case "$*" in
  *--help* | -h) ;;
  *)
    packaged=$PWD/tmp/bench/packaged
    rm -rf "$packaged"
    mkdir -p "$packaged/bin"
    script/compile "$packaged/dist"
    cp bin/upserv "$packaged/bin/"
    cp package.json "$packaged/"
    ln -s "$PWD/node_modules" "$packaged/node_modules"
    ln -s "$PWD/node_modules/node/bin/node" "$packaged/node"
    export UPSERV_PROGRAM="$packaged/bin/upserv"
    ;;
esac
