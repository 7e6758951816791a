"""The chat screen: widgets and key bindings, drawn from the chat's controller. No model calls, no files, no numbers."""
