"""A small application on a real application server: pages, JSON, a form, and a WebSocket that echoes."""

import asyncio
import sys

from aiohttp import WSMsgType, web

PAGE = """<!doctype html><title>app</title><p id=said>waiting</p>
<!-- The page counts as loaded when its images are: this one is answered after the echo. -->
<img src=/app/wait><script>
const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/app/echo`);
const said = document.getElementById('said');
socket.onopen = () => socket.send('tide');
socket.onmessage = (e) => {
  fetch('/app/api?n=20').then((r) => r.json()).then((j) => { said.textContent = `${e.data} and ${j.twice} via ${j.via}`; });
};
socket.onerror = () => { said.textContent = 'the socket failed'; };
</script>"""


async def front(request):
    """The page of any path: a front controller."""
    if request.path == "/app/page":
        return web.Response(text=PAGE, content_type="text/html")
    return web.Response(text=f"controller: {request.path_qs}")


async def api(request):
    """JSON from the query and from header fields that the proxy sets."""
    number = int(request.query.get("n", "0"))
    return web.json_response({"twice": 2 * number, "via": request.headers.get("X-Via", "nobody")})


async def wait(request):
    """Answers when a message was echoed some time ago, or never came."""
    try:
        await asyncio.wait_for(request.app["echoed"].wait(), 20)
        await asyncio.sleep(0.7)
    except asyncio.TimeoutError:
        pass
    return web.Response(text="waited")


async def upload(request):
    """How many bytes were sent."""
    size = 0
    async for chunk in request.content.iter_chunked(65536):
        size += len(chunk)
    return web.Response(text=f"got {size}")


async def echo(request):
    """Sends back each text message in capitals."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
            if message.data == "tide":
                request.app["echoed"].set()
    return socket


def main():
    """Listens on the port named on the command line."""
    app = web.Application(client_max_size=1 << 28)
    app["echoed"] = asyncio.Event()
    app.router.add_get("/app/api", api)
    app.router.add_get("/app/wait", wait)
    app.router.add_post("/app/upload", upload)
    app.router.add_get("/app/echo", echo)
    app.router.add_route("*", "/{path:.*}", front)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


main()
