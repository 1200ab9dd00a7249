"""What people are told when something needs them: an outbox in the lake, sent by mail, to web hooks or into chats."""
