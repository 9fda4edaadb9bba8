#!/bin/sh
# Installs Tidegate below a prefix, or removes what it installed there. Configuration that is there already stays.
set -eu
umask 022

usage() {
    cat <<END
usage: ./install.sh [--prefix FOLDER] [--etc FOLDER] [--uninstall]

  --prefix FOLDER   where the program, its pages and its unit go; default /usr/local
  --etc FOLDER      where the folder "tidegate" with the configuration goes; default /etc, below any prefix but /usr and
                    /usr/local its folder etc
  --uninstall       removes what was installed there; changed configuration stays
END
}

prefix=/usr/local
etc=
action=install
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix | --etc)
            [ $# -gt 1 ] || { usage >&2; exit 2; }
            case "$2" in /*) value=$2 ;; *) value=$PWD/$2 ;; esac
            [ "$1" = --prefix ] && prefix=$value || etc=$value
            shift
            ;;
        --uninstall) action=uninstall ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
if [ -z "$etc" ]; then
    case "$prefix" in /usr | /usr/local) etc=/etc ;; *) etc=$prefix/etc ;; esac
fi
list=$prefix/lib/tidegate/installed
from=$(cd "$(dirname "$0")" && pwd)

# Where logs go: a system's folder for a system's program.
if [ "$etc" = /etc ]; then logs=/var/log/tidegate; else logs=$prefix/var/log/tidegate; fi

# The texts of files name the paths of Debian's package.
adapt() {
    sed -e "s|/usr/sbin/tidegate|$prefix/sbin/tidegate|g" -e "s|/etc/tidegate|$etc/tidegate|g" \
        -e "s|/var/log/tidegate|$logs|g"
}

# A program that runs can't be written to, so the new file takes the old one's name.
put() {
    mkdir -p "$(dirname "$2")"
    case "$1" in
        */nginx.conf | */tidegate.service | */logrotate.d/tidegate) adapt <"$1" >"$2.new" ;;
        *) cp -P "$1" "$2.new" ;;
    esac
    mv "$2.new" "$2"
}

install_all() {
    mkdir -p "$prefix/lib/tidegate" "$logs"
    : >"$list.new"
    (cd "$from/files/usr" && find . ! -type d) | sed 's|^\./||' | while read -r file; do
        put "$from/files/usr/$file" "$prefix/$file"
        echo "- $prefix/$file" >>"$list.new"
    done
    (cd "$from/files/etc" && find . ! -type d) | sed 's|^\./||' | while read -r file; do
        if [ -e "$etc/$file" ]; then
            # It is removed later if it is what was installed first.
            grep -F " $etc/$file" "$list" 2>/dev/null >>"$list.new" || true
            continue
        fi
        put "$from/files/etc/$file" "$etc/$file"
        if [ "$file" = tidegate/nginx.conf ] && ! id www-data >/dev/null 2>&1; then
            sed -i '/^user www-data;$/d' "$etc/$file"
        fi
        echo "$(cksum <"$etc/$file" | tr ' ' :) $etc/$file" >>"$list.new"
    done
    mkdir -p "$etc/tidegate/conf.d" "$etc/tidegate/sites-enabled"
    if [ ! -e "$list" ] && [ ! -e "$etc/tidegate/sites-enabled/default" ]; then
        ln -s ../sites-available/default "$etc/tidegate/sites-enabled/default"
    fi
    mv "$list.new" "$list"
    echo "Tidegate is installed. To run it: $prefix/sbin/tidegate -c $etc/tidegate/nginx.conf"
}

uninstall_all() {
    [ -e "$list" ] || { echo "nothing was installed below $prefix" >&2; exit 1; }
    while read -r sum file; do
        if [ "$sum" = - ] || [ ! -e "$file" ] || [ "$(cksum <"$file" | tr ' ' :)" = "$sum" ]; then
            rm -f "$file"
        else
            echo "changed since it was installed, stays: $file"
        fi
        rmdir -p --ignore-fail-on-non-empty "$(dirname "$file")" 2>/dev/null || true
    done <"$list"
    [ -e "$etc/tidegate/sites-enabled/default" ] || rm -f "$etc/tidegate/sites-enabled/default"
    rm -f "$list"
    rmdir -p --ignore-fail-on-non-empty "$prefix/lib/tidegate" "$etc/tidegate/conf.d" "$etc/tidegate/sites-enabled" \
        2>/dev/null || true
    rmdir --ignore-fail-on-non-empty "$logs" 2>/dev/null || true
}

"${action}_all"
