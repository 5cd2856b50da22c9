"""Reads what Bellhop publishes with the CloudEvents SDK for Python and prints what it understood.

In: one JSON object {"batch": text, "structured": [text], "binary": [{"headers": {}, "body": text}],
"page": text, "single": [{"headers": {}, "body": text}]}.
Out: one JSON array for each of the five, of {"attributes": {}, "data": any}.
"""
import json
import sys

from cloudevents.conversion import to_dict
from cloudevents.http import from_http, from_json
from cloudevents.sdk.converters import is_binary


def shown(event):
    fields = to_dict(event)
    return {"data": event.data, "attributes": {k: v for k, v in fields.items() if k != "data"}}


given = json.load(sys.stdin)
batch = [from_json(json.dumps(one)) for one in json.loads(given["batch"])]
structured = [
    from_http({"content-type": "application/cloudevents+json"}, text) for text in given["structured"]
]
for one in given["binary"]:
    assert is_binary(one["headers"])
binary = [from_http(one["headers"], one["body"].encode() or None) for one in given["binary"]]
page = [from_json(json.dumps(one)) for one in json.loads(given["page"])["items"]]
single = [from_http(one["headers"], one["body"]) for one in given["single"]]
ways = (batch, structured, binary, page, single)
json.dump([[shown(event) for event in events] for events in ways], sys.stdout)
