# Sourced by the scripts, from the checkout's root: makes sure that node_modules matches the lock file
# and puts its programs, Node 26 among them, first in PATH. Prints nothing when there is nothing to do.

if ! command -v npm >/dev/null 2>&1; then
  if [ ! -x node_modules/.bin/node ]; then
    echo "This needs npm, which is not installed. On Debian: apt-get install npm" >&2
    exit 69
  fi
elif [ -L node_modules ]; then
  : # somebody else's: npm would empty it
elif [ ! -f node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "Installing the packages of package-lock.json (npm ci) ..." >&2
  npm ci --no-audit --no-fund --loglevel=error >&2
  touch node_modules/.package-lock.json
fi
PATH=$PWD/node_modules/.bin:$PATH
export PATH
