/* The functions of text.c that the module offers. */
PyObject *text_end_of_value(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *text_run_of_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
