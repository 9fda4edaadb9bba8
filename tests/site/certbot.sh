# Runs in namespaces of its own, with the test's folder at /mnt: pebble as the authority, certbot as its client and as the
# one who changes nginx.conf, and the program under test by the name of nginx.
set -e
mount -t tmpfs none /var
mount -t tmpfs none /run
mount --bind /mnt/hosts /etc/hosts
mkdir -p /var/log/nginx /var/cache/nginx
ip link set lo up
cd /mnt

PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 pebble -config pebble.json > pebble.log 2>&1 &
bin/nginx -c /mnt/nginx/nginx.conf
for i in $(seq 500); do
    curl -s --cacert authority.crt https://localhost:14000/dir > /dev/null && break
    sleep 0.02
done
REQUESTS_CA_BUNDLE=/mnt/authority.crt certbot run --nginx --nginx-ctl /mnt/bin/nginx --nginx-server-root /mnt/nginx \
    --server https://localhost:14000/dir --config-dir /mnt/etc --work-dir /mnt/work --logs-dir /mnt/logs \
    --non-interactive --agree-tos --register-unsafely-without-email --redirect -d site.example.com 2>&1
curl -s --cacert authority.crt https://localhost:15000/roots/0 > root.pem
echo "== page"
curl -sS --retry 20 --retry-connrefused --cacert root.pem https://site.example.com/
echo "== redirect"
curl -sS -o /dev/null -w '%{http_code} %{redirect_url}\n' http://site.example.com/
echo "== renew"
REQUESTS_CA_BUNDLE=/mnt/authority.crt certbot renew --force-renewal --no-random-sleep-on-renew --config-dir /mnt/etc \
    --work-dir /mnt/work --logs-dir /mnt/logs 2>&1
curl -sS --cacert root.pem https://site.example.com/
bin/nginx -c /mnt/nginx/nginx.conf -s quit
