"""A video over RTSP on loopback, from its start for each client: FILE PORT.

Run by a Python that has GStreamer's RTSP server, which PyPI lacks; on Debian ``/usr/bin/python3``
with ``python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad``.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PARTS = {
    "h264": "h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "mpeg4": "mpeg4videoparse ! rtpmp4vpay name=pay0 pt=96",
}


def main() -> None:
    file, codec, port = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f'( filesrc location="{file}" ! qtdemux ! {PARTS[codec]} )')
    server.get_mount_points().add_factory("/people", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
