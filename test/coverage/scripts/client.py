# Streams one answer: client.py BASE_URL MODULE. What it read is printed.
import sys, json, os

url, module = sys.argv[1] + "/v1/chat/completions", sys.argv[2]
body = {"model": "gpt-4o-mini", "stream": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}]}
ca = os.environ["SSL_CERT_FILE"]
if module == "urllib":
    import ssl, urllib.request
    req = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(req, context=ssl.create_default_context(cafile=ca)) as r:
        for line in r:
            print(line.decode(), end="")
elif module == "requests":
    import requests
    with requests.post(url, json=body, stream=True, verify=ca) as r:
        for line in r.iter_lines():
            print(line.decode())
elif module == "httpx":
    import httpx
    with httpx.Client(verify=ca) as c, c.stream("POST", url, json=body) as r:
        for line in r.iter_lines():
            print(line.strip())
elif module == "aiohttp":
    import aiohttp, asyncio, ssl
    async def main():
        tls = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca))
        async with aiohttp.ClientSession(connector=tls) as s, s.post(url, json=body) as r:
            async for line in r.content:
                print(line.decode(), end="")
    asyncio.run(main())
