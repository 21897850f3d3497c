package extension

// NewWithLimit is New with another time limit for commands.
var NewWithLimit = newBackend
