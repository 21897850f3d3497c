package embedded

// WorthDefragment is tested as a table.
var WorthDefragment = worthDefragment
