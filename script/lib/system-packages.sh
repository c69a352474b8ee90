# Sourced: which programs the tests use, and which Debian package has each. `program:package` lines.
# Without one of them the tests that need it skip themselves and say so.
TEST_PROGRAMS="
rsync:rsync
nginx:nginx-light
xinetd:xinetd
openssl:openssl
gnutls-cli:gnutls-bin
stunnel4:stunnel4
haproxy:haproxy
xz:xz-utils
bzip2:bzip2
lbzip2:lbzip2
zstd:zstd
lz4:lz4
lzip:lzip
bsdtar:libarchive-tools
mtree:mtree-netbsd
setfattr:attr
setfacl:acl
mmdebstrap:mmdebstrap
curl:curl
chromium:chromium
promtool:prometheus
systemd-socket-activate:systemd
systemd-nspawn:systemd-container
dh:debhelper
dpkg-buildpackage:dpkg-dev
strip:binutils
aarch64-linux-gnu-strip:binutils-aarch64-linux-gnu
lintian:lintian
man:man-db
busybox:busybox
zsh:zsh
fish:fish
gpg:gpg
gpgv:gpgv
minisign:minisign
zip:zip
cpio:cpio
tar2sqfs:squashfs-tools-ng
xorriso:xorriso
mke2fs:e2fsprogs
docker-registry:docker-registry
skopeo:skopeo
umoci:umoci
memcached:memcached
swift-proxy-server:swift-proxy
swift-object-server:swift-object
swift-container-server:swift-container
swift-account-server:swift-account
bwrap:bubblewrap
strace:strace
"

# Debian keeps some of them where only root looks.
PATH=$PATH:/usr/sbin:/sbin

# missing_packages: the packages of the programs that are not there, on one line.
missing_packages() {
  for pair in $TEST_PROGRAMS; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || printf '%s ' "${pair#*:}"
  done
}

# install_packages PACKAGE...: by apt-get, without starting the services that come with them.
install_packages() {
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e $policy ]; then
    # Debian asks this before it starts a service; 101 means no.
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    made_policy=yes
  fi
  status=0
  export DEBIAN_FRONTEND=noninteractive
  install="apt-get install -y -qq --no-install-recommends"
  # A fresh container has no package lists yet.
  $install "$@" >/dev/null 2>&1 || { apt-get update -qq >&2 && $install "$@" >/dev/null; } || status=$?
  if [ -n "$made_policy" ]; then rm -f $policy; fi
  return $status
}
