; PCI configuration space, mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).

; in: EAX address with bit 31 set; out: EAX; clobbers: EDX
pci_read:
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    in eax, dx
    ret

; in: EAX address with bit 31 set, ECX value; clobbers: EAX, EDX
pci_write:
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    mov eax, ecx
    out dx, eax
    ret

; Looks for a function on bus 0. in: EBX mask and EDI wanted value of the configuration register ESI
; out: EAX its address, CF set where there is none; clobbers: ECX, EDX
pci_find:
    mov ecx, 0x80000000
.function:
    mov eax, ecx
    call pci_read
    cmp ax, 0xFFFF
    je .next
    lea eax, [ecx + esi]
    call pci_read
    and eax, ebx
    cmp eax, edi
    je .found
.next:
    add ecx, 0x100
    cmp ecx, 0x80010000
    jb .function
    stc
    ret
.found:
    mov eax, ecx
    clc
    ret

; A memory BAR's address. Firmware that did not place it leaves that to us; memory decoding is turned on.
; in: EAX the function's address, ECX the BAR's number; out: EDI, CF set where it is no memory below 4 GiB
; clobbers: EAX, ECX, EDX, ESI
pci_bar:
    mov esi, eax
    lea edi, [eax + 4 * ecx + 0x10]
    mov eax, edi
    call pci_read
    test eax, 1
    jnz .none
    mov ecx, eax
    and ecx, 0xFFFFFFF0
    jnz .placed
    ; how large is it? all ones read back as the mask of its size
    mov ecx, 0xFFFFFFFF
    mov eax, edi
    call pci_write
    mov eax, edi
    call pci_read
    and eax, 0xFFFFFFF0
    jz .none
    ; the next free place that is a multiple of the size
    mov ecx, eax
    neg ecx
    dec ecx
    add ecx, dword ptr [pci_next]
    jc .none
    and ecx, eax
    neg eax
    add eax, ecx
    jc .none
    ; from there on the chipset and the CPUs have registers
    cmp eax, 0xFEC00000
    ja .none
    mov dword ptr [pci_next], eax
    push ecx
    mov eax, edi
    call pci_write
    ; the upper half of a 64-bit BAR
    mov eax, edi
    call pci_read
    and eax, 6
    cmp eax, 4
    jne .lower
    lea eax, [edi + 4]
    xor ecx, ecx
    call pci_write
.lower:
    pop ecx
    jmp .enable
.placed:
    mov eax, edi
    call pci_read
    and eax, 6
    cmp eax, 4
    jne .enable
    push ecx
    lea eax, [edi + 4]
    call pci_read
    pop ecx
    test eax, eax
    jnz .none
.enable:
    mov edi, ecx
    lea eax, [esi + 4]
    call pci_read
    ; the status bits above the command are cleared by writing ones
    movzx ecx, ax
    or ecx, 2
    lea eax, [esi + 4]
    call pci_write
    clc
    ret
.none:
    stc
    ret
