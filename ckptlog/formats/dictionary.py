"""Dictionary 1 of codec 3: what the texts of agents have in common (specs/chunk.md).

A short value is mostly names of fields and punctuation, which a compressor has to learn anew in
each chunk; with these bytes in front of it they cost next to nothing. Composed by hand from the
wire forms of values, messages and checkpoints: what is most frequent stands last, where it is
cheapest to name.

Part of the format: chunks are read with it for ever. It MUST NOT change; a better one is another
codec with another feature.
"""

from __future__ import annotations

from typing import Final

_GENERAL: Final = (
    "the of and to in is that for it with as was on are this be from or by an at not have you "
    "which all there can will has been one their would more when who what if out so up into than "
    "Let me The file function should return value error Error: Traceback (most recent call last):"
    '\\n  File \\"/", line import self.def __init__(self, \\n    \\n\\n```python\\nhttps://www.'
    '{"status":"completed","pending","in_progress","failed","running","success","timestamp":'
    '"created_at":"updated_at":"description":"title":"summary":"result":null,"results":[],"error":'
    'null,"errors":[],"items":[{"index":0,"key":"value":true,"enabled":false,"priority":"version":'
    '"config":{"model":"temperature":0.0,"max_tokens":"provider":"settings":{"plan":[{"tasks":[{"'
    '"steps":[{"step":1,"progress":"history":[{"context":{"memory":{"state":{"data":{"output":"'
    '"query":"answer":"url":"path":"file":"command":"line":"text":"score":0.'
    '{"$tuple":[{"$bytes":"{"$datetime":"2026-01-01T00:00:00+00:00"},{"$uuid":"{"$set":["'
    '{"$array":{"dtype":"<f4","shape":[,"data":"'
)
_CHAT: Final = (
    '{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user",'
    '"content":[{"type":"text","text":"{"role":"tool","tool_call_id":"call_","name":"'
    '{"type":"tool_result","tool_use_id":"toolu_01","content":"","is_error":false}]},'
    '{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"'
    '{"type":"tool_use","id":"toolu_01","name":"","input":{"path":"{"role":"assistant","content":'
    'null,"tool_calls":[{"id":"call_","type":"function","function":{"name":"","arguments":"{\\"'
    '\\"}"}}]},"stop_reason":"tool_use","usage":{"input_tokens":"output_tokens":"'
)
_LANGCHAIN: Final = (
    '{"$type":["lc.SystemMessage",[{"content":"","additional_kwargs":{},"response_metadata":{},'
    '"type":"system","name":null,"id":null},{},null]]},"response_metadata":{"finish_reason":"stop",'
    '"model_name":"","model_provider":"","token_usage":{"completion_tokens":,"prompt_tokens":,'
    '"total_tokens":"usage_metadata":{"input_tokens":,"output_tokens":,"total_tokens":,'
    '"input_token_details":{"cache_read":0},"output_token_details":{"reasoning":0}}},{},null]]},'
    '{"$type":["lc.ToolMessage",[{"content":"","additional_kwargs":{},"response_metadata":{},'
    '"type":"tool","name":null,"id":"","tool_call_id":"call_","artifact":null,"status":"success"},'
    '{},null]]},{"$type":["lc.HumanMessage",[{"content":"","additional_kwargs":{},'
    '"response_metadata":{},"type":"human","name":null,"id":""},{},null]]},'
    '{"$type":["lc.AIMessage",[{"content":"","additional_kwargs":{},"response_metadata":{},'
    '"type":"ai","name":null,"id":"","tool_calls":[{"name":"search","args":{"query":""},'
    '"id":"call_","type":"tool_call"}],"invalid_tool_calls":[],"usage_metadata":null},{},null]]}],'
)
_LANGGRAPH: Final = (
    '{"title":"","description":"","metadata":{"source":"loop","step":null,"parents":{},"writes":'
    '{"writes":[["","messages",[{"$type":["lg.Send",["__pregel_tasks",["~__pregel_pull, ","'
    '"branch:to:agent":"","branch:to:tools":""},"versions_seen":{"__input__":{},"__start__":'
    '{"__start__":"00000000000000000000000000000001.0."},"agent":{"branch:to:agent":'
    '"00000000000000000000000000000003.0."},"tools":{"branch:to:tools":""}},"channel_versions":'
    '{"__start__":"00000000000000000000000000000002.0.'
    '{"writes":[],"checkpoint":{"v":2,"id":"1f1","ts":"2026-01-01T00:00:00.000000+00:00",'
    '"channel_versions":{"messages":"00000000000000000000000000000101.000000000.","count":'
    '"00000000000000000000000000000101.000000000."},"versions_seen":{},"pending_sends":[],'
    '"updated_channels":null,"channel_values":{"messages":[{"$type":["lc.'
)

DICTIONARY: Final = (_GENERAL + _CHAT + _LANGCHAIN + _LANGGRAPH).encode("ascii")
