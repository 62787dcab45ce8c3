"""A site that is up to no good: pages that make the browser send whatever a page can make it send.

Each kind of request is a function of a URL; it settles when the browser is done with the answer,
and gives what the page could learn of it, which should be nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "other.test"

SCRIPT = """
const loaded = (element, url, learn = () => '', attribute = 'src') => new Promise(done => {
  element.onload = () => done(learn(element));
  element.onerror = () => done('');
  element[attribute] = url;
  document.body.append(element);
});
const make = (tag, attributes = {}) => Object.assign(document.createElement(tag), attributes);
const inside = frame => {
  try { return frame.contentDocument.body.innerText } catch { return '' }
};
const fetched = (url, options) => fetch(url, options).then(answer => answer.text(), () => '');
const timed = url => new Promise(done => {
  new PerformanceObserver(list => {
    if (list.getEntries().some(entry => entry.name == url)) done('');
  }).observe({type: 'resource', buffered: true});
});
const submitted = (url, method) => {
  const name = 'frame-' + method;
  const frame = make('iframe', {name});
  document.body.append(frame);
  const form = make('form', {action: url, method, target: name});
  form.innerHTML = '<input name=a value=b>';
  document.body.append(form);
  return new Promise(done => {
    frame.onload = () => done(inside(frame));
    form.submit();
  });
};
const xhr = url => new Promise(done => {
  const request = new XMLHttpRequest();
  request.onloadend = () => done(request.responseText);
  request.open('GET', url);
  request.setRequestHeader('Accept', 'text/html');
  request.send();
});
const listened = (source, more = () => 0) => new Promise(done => {
  source.onmessage = event => { source.close(); done(event.data) };
  source.onerror = () => { source.close(); done('') };
  source.onclose = () => done('');
  more(source);
});
const size = image => image.naturalWidth ? 'size' : '';

const KINDS = {
  'img': url => loaded(make('img'), url, size),
  'img-crossorigin': url => loaded(make('img', {crossOrigin: 'anonymous'}), url, size),
  'script': url => loaded(make('script'), url, () => String(window.stolen || '')),
  'style': url => loaded(make('link', {rel: 'stylesheet'}), url, () => '', 'href'),
  'video': url => new Promise(done => {
    const video = make('video', {preload: 'auto'});
    video.onloadedmetadata = () => done('size');
    video.onerror = () => done('');
    video.src = url;
  }),
  'fetch-no-cors': url => fetched(url, {mode: 'no-cors', credentials: 'include'}),
  'fetch-cors': url => fetched(url, {}),
  'fetch-cors-include': url => fetched(url, {credentials: 'include'}),
  'fetch-omit': url => fetched(url, {credentials: 'omit'}),
  'fetch-omit-no-referrer': url =>
    fetched(url, {credentials: 'omit', referrerPolicy: 'no-referrer'}),
  'fetch-accept': url => fetched(url, {credentials: 'omit', headers: {Accept: 'text/html'}}),
  'fetch-post': url =>
    fetched(url, {method: 'POST', body: 'x', mode: 'no-cors', credentials: 'include'}),
  'fetch-post-omit': url => fetched(url, {method: 'POST', body: 'x', credentials: 'omit'}),
  'fetch-put': url => fetched(url, {method: 'PUT', body: 'x', credentials: 'include'}),
  'xhr': xhr,
  'event-source': url => listened(new EventSource(url, {withCredentials: true})),
  'websocket': url => listened(new WebSocket(url.replace('http', 'ws'))),
  'beacon': url => { const done = timed(url); navigator.sendBeacon(url, 'x'); return done },
  'prefetch': url => loaded(make('link', {rel: 'prefetch'}), url, () => '', 'href'),
  'form-post-framed': url => submitted(url, 'post'),
  'iframe': url => loaded(make('iframe'), url, inside),
  'iframe-sandbox': url => loaded(make('iframe', {sandbox: 'allow-scripts'}), url, inside),
  'object': url => loaded(make('object'), url, inside, 'data'),
  'embed': url => loaded(make('embed'), url),
  'form-get-framed': url => submitted(url, 'get'),
};
// Of what fails a browser does not always tell the page.
const inTime = done => Promise.race(
  [done, new Promise(late => setTimeout(() => late('late'), 20000))]);
const attack = async (names, base) => Object.fromEntries(
  await Promise.all(names.map(async name => [name, await inTime(KINDS[name](base + name))])));
const leave = (url, method) => {
  const form = make('form', {action: url, method});
  form.innerHTML = '<input name=a value=b>';
  document.body.append(form);
  form.submit();
};
"""

PAGE = (
    f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><body><script>{SCRIPT}</script>"
)

WITHHELD = (
    "img",
    "img-crossorigin",
    "script",
    "style",
    "video",
    "fetch-no-cors",
    "fetch-cors",
    "fetch-cors-include",
    "fetch-omit",
    "fetch-omit-no-referrer",
    "fetch-accept",
    "fetch-post",
    "fetch-post-omit",
    "fetch-put",
    "xhr",
    "event-source",
    "websocket",
    "beacon",
    "prefetch",
    "form-post-framed",
)
"""For these the proxy has no authority at all."""

FRAMED = ("iframe", "iframe-sandbox", "object", "embed", "form-get-framed")
"""On plain http these look like pages: they are sent through /auth, and the browser decides."""


@contextmanager
def other_site() -> Iterator[int]:
    """Serves its page on a loopback port."""
    page = PAGE.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
