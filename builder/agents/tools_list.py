"""The built-in tools of the Claude Agent SDK that a local model is to be kept from."""

SDK = "0.2.186"
"""The version of claude-agent-sdk that OFFERED was read from, with `builder tools`."""

OFFERED = frozenset(
    {
        "Agent",
        "AskUserQuestion",  # with a permission callback
        "Bash",
        "CronCreate",
        "CronDelete",
        "CronList",
        "Edit",
        "EnterPlanMode",  # with a permission callback
        "EnterWorktree",
        "ExitPlanMode",  # with a permission callback
        "ExitWorktree",
        "Glob",  # only once Bash is taken away
        "Grep",  # the same
        "ListAgents",
        "Monitor",
        "NotebookEdit",
        "Read",
        "ReportFindings",
        "ScheduleWakeup",
        "SendMessage",
        "Skill",
        "TaskStop",
        "ToolSearch",
        "WebFetch",
        "WebSearch",
        "Workflow",
        "Write",
    }
)
"""What it offers a model on Linux: at once, with a permission callback, or without the others."""

BESIDES = frozenset(
    {
        # Offered by SDK in a session with MCP servers that have resources,
        "ListMcpResourcesTool",
        "ReadMcpResourceDirTool",
        "ReadMcpResourceTool",
        # with CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC not set,
        "DesignSync",
        # with CLAUDE_CODE_USE_POWERSHELL_TOOL or CLAUDE_CODE_BRIEF,
        "PowerShell",
        "SendUserMessage",
        # and with CLAUDE_CODE_REMOTE.
        "ListConnectors",
        "ListPlugins",
        "ListSkills",
        "ReadNotifications",
        "SearchMcpRegistry",
        "SearchPlugins",
        "SearchSkills",
        "ShowOnboardingRolePicker",
        "SuggestConnectors",
        "SuggestPluginInstall",
        "SuggestSkills",
        # Of earlier versions.
        "BashOutput",
        "LS",
        "MultiEdit",
        "NotebookRead",
        "SlashCommand",
        "TaskCreate",
        "TaskGet",
        "TaskList",
        "TaskOutput",
        "TaskUpdate",
        "TodoWrite",
    }
)
"""Banned too: a name that is not offered is banned without harm."""

ALIASES = {"Task": "Agent", "KillShell": "TaskStop"}
"""Earlier names under which the program still bans a tool."""

PLACEHOLDER = "DeferredToolPlaceholder"
"""Offered beside tools that tool search may load, and none itself: the program refuses a call."""
