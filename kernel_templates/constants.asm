; Names for numbers. All of them come from Python, where each is defined once.
{% for name, value in constants.items() %}
.equ {{ name }}, {{ "%#x" | format(value) }}
{% endfor %}
