"""The reference of bench/live.py: FastAPI and uvicorn, a set of sockets, one broadcast a post."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect

app = FastAPI()
sockets: set[WebSocket] = set()


@app.websocket("/live")
async def live(socket: WebSocket) -> None:
    """Hold a socket until its client goes."""
    await socket.accept()
    sockets.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        sockets.discard(socket)


@app.post("/broadcast")
async def broadcast(request: Request) -> dict[str, int]:
    """Send the body to all."""
    text = (await request.body()).decode()
    await asyncio.gather(*[socket.send_text(text) for socket in list(sockets)])
    return {"sockets": len(sockets)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
